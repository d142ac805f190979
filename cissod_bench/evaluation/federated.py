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
    looked_for = set(zip(left.box_image.tolist(), left.box_class.tolist(), strict=True))
    for image, absent in zip(truth.image_ids.tolist(), truth.negative, strict=True):
        looked_for.update((image, kind) for kind in absent)
    pairs = zip(detections.box_image.tolist(), detections.box_class.tolist(), strict=True)
    annotated = np.fromiter((pair in looked_for for pair in pairs), dtype=np.bool_, count=len(detections.scores))
    return left, detections.chosen(best_of_each_image(detections, number) & annotated)
