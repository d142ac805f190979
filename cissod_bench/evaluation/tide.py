"""Why detections are wrong: TIDE's error types by class, and confusion between majority and minority classes.

Error types of Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, at IoU 0.5 and
a background threshold of 0.1. `hotcoco` computes their totals and what AP50 would gain without each type; the types
by class are counted here and add up to its totals (tests).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cissod_bench.evaluation.backends import hotcoco_eval
from cissod_bench.evaluation.federated import only_what_counts
from cissod_bench.evaluation.inputs import Detections, GroundTruth

ERROR_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""Wrong class, wrong location, both, duplicate, background, missed."""

FOREGROUND, BACKGROUND = 0.5, 0.1


@dataclass(frozen=True, eq=False)
class ErrorCounts:
    """TIDE's errors.

    Attributes:
        by_class: type -> (K,) int64; false detections by their class, missed objects by theirs.
        correct: (K,) int64, detections that found an object of their class.
        gain: type -> how much AP50 of all classes would rise if errors of this type were fixed, in [0, 1].
    """

    by_class: dict[str, NDArray[np.int64]]
    correct: NDArray[np.int64]
    gain: dict[str, float]


def tide_errors(
    truth: GroundTruth, detections: Detections, *, max_detections: int = 100, lvis: bool = False
) -> ErrorCounts:
    """Classify every false detection and every missed object by error type.

    Args:
        truth: annotations of K classes.
        detections: scored boxes.
        max_detections: detections that count: of each class and image, or by LVIS's rules of each image.
        lvis: LVIS's rules: detections of classes that were not looked for in their image do not exist, and unmatched
            ones of classes that are not exhaustively annotated in it are not errors.
    """
    from hotcoco.primitives import bbox_iou

    if lvis:
        truth, detections = only_what_counts(truth, detections, max_detections)
    evaluation = hotcoco_eval(truth, detections, max_detections, lvis)
    evaluation.params.area_rng = [[0.0, 1e10]]
    evaluation.params.area_rng_lbl = ["all"]
    evaluation.evaluate()
    gain = evaluation.tide_errors(FOREGROUND, BACKGROUND)["delta_ap"]
    correct, wrong, found = _sorted_out(evaluation, len(detections.scores), len(truth.areas))
    classes = len(truth.class_ids)
    kind = np.searchsorted(truth.class_ids, detections.box_class)
    truth_kind = np.searchsorted(truth.class_ids, truth.box_class)
    by_class: dict[str, NDArray[np.int64]] = {name: np.zeros(classes, dtype=np.int64) for name in ERROR_TYPES}
    explained = np.zeros(len(truth.areas), dtype=np.bool_)
    objects = np.argsort(truth.box_image, kind="stable")
    object_images = truth.box_image[objects]
    wrong = wrong[np.argsort(detections.box_image[wrong], kind="stable")]
    images, starts = np.unique(detections.box_image[wrong], return_index=True)
    for image, rows in zip(images, np.split(wrong, starts[1:]), strict=False):  # of no images there is one empty part
        here = objects[slice(*np.searchsorted(object_images, [image, image + 1]))]
        if not len(here):
            by_class["Bkg"] += np.bincount(kind[rows], minlength=classes)
            continue
        overlap = bbox_iou(detections.boxes[rows], truth.boxes[here], truth.crowd[here])
        same = truth_kind[here] == kind[rows][:, None]
        types, targets = _types(overlap, same, found[here], truth.crowd[here])
        for name in ERROR_TYPES[:-1]:
            by_class[name] += np.bincount(kind[rows][types == name], minlength=classes)
        explained[here[targets[targets >= 0]]] = True
    missed = np.flatnonzero(~truth.crowd & ~found & ~explained)
    by_class["Miss"] += np.bincount(truth_kind[missed], minlength=classes)
    return ErrorCounts(
        by_class=by_class,
        correct=np.bincount(kind[correct], minlength=classes),
        gain={name: float(gain[name]) for name in ERROR_TYPES},
    )


def group_confusion(
    truth: GroundTruth,
    detections: Detections,
    groups: Mapping[str, Sequence[str]],
    *,
    min_score: float = 0.3,
    max_detections: int = 100,
    lvis: bool = False,
) -> dict[str, dict[str, int]]:
    """What objects of each group are mistaken for: matched at IoU 0.5 regardless of class, best scores first.

    The share of minority objects that are mistaken for a majority class or for background measures the paper's first
    type of confirmation bias (sec. 3.1).

    Args:
        truth: annotations.
        detections: scored boxes.
        groups: class names of each group; groups must not overlap.
        min_score: detections with lower scores do not count.
        max_detections, lvis: as of `tide_errors`.

    Returns:
        group of the object -> {"correct": right class, "within": another class of the group, each other group's name,
        "background": not found} -> number of objects.

    Raises:
        ValueError: a class is in two groups, so that its objects would count twice.
    """
    if sum(map(len, groups.values())) > len({name for names in groups.values() for name in names}):
        raise ValueError(f"groups that overlap: {', '.join(groups)}")
    if lvis:
        truth, detections = only_what_counts(truth, detections, max_detections)
    evaluation = hotcoco_eval(truth, detections, max_detections, lvis=False)
    matrix = evaluation.confusion_matrix(iou_thr=FOREGROUND, min_score=min_score)["matrix"].astype(np.int64)
    at = {name: position for position, name in enumerate(truth.class_names)}
    members = {group: [at[name] for name in names] for group, names in groups.items()}
    result = {}
    for group, rows in members.items():
        inside = int(matrix[np.ix_(rows, rows)].sum())
        correct = int(matrix[rows, rows].sum())
        others = {name: int(matrix[np.ix_(rows, columns)].sum()) for name, columns in members.items() if name != group}
        missed = int(matrix[rows, -1].sum())
        result[group] = {"correct": correct, "within": inside - correct, **others, "background": missed}
    return result


def _sorted_out(
    evaluation: object, detections: int, objects: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the correct and of the false detections at IoU 0.5, and which objects were found."""
    correct = np.zeros(detections, dtype=np.bool_)
    wrong = np.zeros(detections, dtype=np.bool_)
    found = np.zeros(objects, dtype=np.bool_)
    for cell in evaluation.eval_imgs:  # type: ignore[attr-defined]
        if cell is None:
            continue
        rows = np.array(cell["dtIds"], dtype=np.int64) - 1  # detections and objects are numbered from 1 in their order
        matched, ignored = (np.array(cell[name][0], dtype=np.bool_) for name in ("dtMatched", "dtIgnore"))
        correct[rows[matched & ~ignored]] = True
        wrong[rows[~matched & ~ignored]] = True
        found[np.array(cell["gtIds"], dtype=np.int64)[np.array(cell["gtMatched"][0], dtype=np.bool_)] - 1] = True
    return np.flatnonzero(correct), np.flatnonzero(wrong), found


def _types(
    overlap: NDArray[np.float64], same: NDArray[np.bool_], found: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Error type of each false detection of an image, and the object that it refers to, -1 for none.

    Args:
        overlap: (D, G) IoU of false detections and objects; for crowd regions, the covered share of the detection.
        same: (D, G) whether they have the same class.
        found: (G,) whether another detection found the object.
        crowd: (G,) crowd regions, which explain detections of their own class only.
    """
    same_overlap, other_overlap = np.where(same, overlap, 0.0), np.where(same | crowd, 0.0, overlap)
    best_same, best_other = same_overlap.max(axis=1), other_overlap.max(axis=1)
    conditions = {
        "Loc": (best_same >= BACKGROUND) & (best_same <= FOREGROUND),
        "Cls": best_other >= FOREGROUND,
        "Dupe": np.where(found & ~crowd, same_overlap, 0.0).max(axis=1) >= FOREGROUND,
        "Bkg": np.maximum(best_same, best_other) <= BACKGROUND,
    }
    types = np.select(list(conditions.values()), list(conditions), default="Both")
    targets = np.select(
        [types == "Loc", types == "Cls"], [same_overlap.argmax(axis=1), other_overlap.argmax(axis=1)], default=-1
    )
    return types, targets
