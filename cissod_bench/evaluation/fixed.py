"""AP Fixed for LVIS (Dave et al., Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details, 2021).

A cap of 300 detections in an image makes classes compete for places, and a detector gains by moving scores between
classes. AP Fixed keeps the best 10,000 detections of each class over all images, and no cap in an image.
"""

import numpy as np

from cissod_bench.evaluation.inputs import Detections

PER_CLASS = 10_000


def best_of_each_class(detections: Detections, number: int) -> Detections:
    """The detections with the highest scores of each class over all images; of equal scores the first ones.

    Args:
        detections: scored boxes.
        number: how many of each class stay, at most.
    """
    order = np.lexsort((-detections.scores, detections.box_class))  # stable
    kinds = detections.box_class[order]
    place = np.arange(len(order)) - np.searchsorted(kinds, kinds, side="left")
    return detections.chosen(np.sort(order[place < number]))


def most_in_an_image(detections: Detections) -> int:
    """The largest number of detections in an image."""
    return int(np.unique(detections.box_image, return_counts=True)[1].max(initial=0))
