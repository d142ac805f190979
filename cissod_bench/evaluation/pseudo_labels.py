"""Precision and recall of pseudo labels against annotations that training never sees (paper Fig. 3)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cissod_bench.coco.checks import UNUSABLE, Flag
from cissod_bench.coco.names import clean_name
from cissod_bench.coco.reader import read_columns

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HiddenLabels:
    """Annotated boxes by image, crowd regions left out.

    Attributes:
        boxes: image id -> (B, 4) x1, y1, x2, y2 in pixels of the original image.
        labels: image id -> (B,) position of each box's class in the class names.
        images: ids of the annotated images, those without a box included. What others hold is not known.
    """

    boxes: dict[int, Float]
    labels: dict[int, Int]
    images: frozenset[int]


def read_hidden_labels(annotations: Path, class_names: tuple[str, ...]) -> HiddenLabels:
    """Read the full training annotations. Classes are matched by name; other classes are left out.

    So are boxes that no split has either (`checks.UNUSABLE`): what `make-splits` reads can be given here.

    Raises:
        UserError: not an annotation file in COCO form.
    """
    columns = read_columns(annotations, file_names="none")
    label_of = {clean_name(name): label for label, name in enumerate(class_names)}
    by_class = [label_of.get(clean_name(category.name), -1) for category in columns.categories]
    labels = np.array([*by_class, -1], dtype=np.int64)[columns.box_label]  # the last for unknown classes, label -1
    corners = np.concatenate([columns.boxes[:, :2], columns.boxes[:, :2] + columns.boxes[:, 2:]], axis=1)
    unusable = np.uint16(int(UNUSABLE & ~Flag.NO_SIZE))  # a size does not matter here
    keep = (labels >= 0) & ~columns.crowd & (columns.flags & unusable == 0)
    box_image = columns.image_ids[columns.box_image[keep]]
    order = np.argsort(box_image, kind="stable")
    images, starts = np.unique(box_image[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(images) else []
    return HiddenLabels(
        boxes={int(image): corners[keep][part] for image, part in zip(images, parts, strict=True)},
        labels={int(image): labels[keep][part] for image, part in zip(images, parts, strict=True)},
        images=frozenset(columns.image_ids.tolist()),
    )


def count_matches(
    boxes: Float,
    labels: Int,
    scores: Float,
    true_boxes: Float,
    true_labels: Int,
    num_classes: int,
    overlap: float = 0.5,
) -> Int:
    """Numbers of correct pseudo labels, of all pseudo labels and of annotated boxes of one image, by class.

    In the order of their scores, pseudo labels take the free annotated box of their class that they overlap most. They
    are correct if the intersection over union is at least `overlap`, as in COCO's evaluation.

    Args:
        boxes: (P, 4) pseudo boxes, x1, y1, x2, y2.
        labels: (P,) their classes.
        scores: (P,) their scores.
        true_boxes: (B, 4) annotated boxes.
        true_labels: (B,) their classes.
        num_classes: n.
        overlap: smallest intersection over union of a match.

    Returns:
        (3, n) counts: correct, all, annotated.
    """
    counts = np.zeros((3, num_classes), dtype=np.int64)
    counts[1] = np.bincount(labels, minlength=num_classes)
    counts[2] = np.bincount(true_labels, minlength=num_classes)
    taken = np.zeros(len(true_labels), dtype=bool)
    for index in np.argsort(-scores, kind="stable"):
        candidates = np.flatnonzero((true_labels == labels[index]) & ~taken)
        if len(candidates) == 0:
            continue
        overlaps = _overlaps(boxes[index], true_boxes[candidates])
        best = int(overlaps.argmax())
        if overlaps[best] >= overlap:
            taken[candidates[best]] = True
            counts[0, labels[index]] += 1
    return counts


def precision_recall_of_groups(counts: Int, groups: dict[str, list[int]]) -> dict[str, tuple[float, float]]:
    """Mean precision and recall over the classes of each group for which they are defined; NaN if for none.

    Args:
        counts: (3, n) correct, all, annotated, as returned by `count_matches`, summed over images.
        groups: labels of each group.
    """
    with np.errstate(invalid="ignore"):
        precision, recall = counts[0] / counts[1], counts[0] / counts[2]
    result = {}
    for name, members in groups.items():
        means = []
        for values in (precision[members], recall[members]):
            known = values[~np.isnan(values)]
            means.append(float(known.mean()) if known.size else float("nan"))
        result[name] = (means[0], means[1])
    return result


def _overlaps(box: Float, others: Float) -> Float:
    corner = np.maximum(box[:2], others[:, :2])
    sides = np.clip(np.minimum(box[2:], others[:, 2:]) - corner, 0, None)
    shared = sides.prod(axis=1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = areas - shared
    overlaps: Float = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps
