"""Which boxes count by LVIS's federated rules, where each class is annotated in a part of the images alone."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cissod_bench.evaluation.inputs import Detections, GroundTruth


def best_of_each_image(detections: Detections, number: int) -> NDArray[np.bool_]:
    """(D,) mask of the detections that lvis-api scores: of the best ones of each image those with an area."""
    order = np.lexsort((-detections.scores, detections.box_image))  # stable: equal scores keep the order of the input
    images = detections.box_image[order]
    first = np.searchsorted(images, images, side="left")
    counts = np.empty(len(order), dtype=np.bool_)
    counts[order] = np.arange(len(order)) - first < number
    return counts & (detections.boxes[:, 2] * detections.boxes[:, 3] > 0)


def only_what_counts(truth: GroundTruth, detections: Detections, number: int) -> tuple[GroundTruth, Detections]:
    """Objects with an area, and detections of classes that were looked for in their image.

    Args:
        truth: annotations with LVIS's lists.
        detections: scored boxes.
        number: how many of the best detections of an image count.

    Returns:
        the objects; and of the detections of `best_of_each_image` those whose class is annotated in the image, or
        listed as absent from it. Others are neither right nor wrong.
    """
    objects = truth.areas > 0
    left = replace(
        truth,
        box_image=truth.box_image[objects],
        box_class=truth.box_class[objects],
        boxes=truth.boxes[objects],
        areas=truth.areas[objects],
        crowd=np.zeros(int(objects.sum()), dtype=np.bool_),
    )
    absent = [
        (image, kind) for image, kinds in zip(truth.image_ids.tolist(), truth.negative, strict=True) for kind in kinds
    ]
    every = np.array(absent, dtype=np.int64).reshape(-1, 2)
    listed = every[np.isin(every[:, 1], truth.class_ids)]
    looked_for = np.concatenate(
        [_pairs(truth, left.box_image, left.box_class), _pairs(truth, listed[:, 0], listed[:, 1])]
    )
    annotated = np.isin(_pairs(truth, detections.box_image, detections.box_class), looked_for)
    return left, detections.chosen(best_of_each_image(detections, number) & annotated)


def _pairs(truth: GroundTruth, images: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each pair of an image and a class."""
    positions = np.searchsorted(np.sort(truth.image_ids), images)
    return positions * len(truth.class_ids) + np.searchsorted(np.sort(truth.class_ids), classes)
