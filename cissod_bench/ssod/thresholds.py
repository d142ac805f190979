"""Threshold policies: which pseudo labels of the teacher train the RoI classifier.

A policy is a module with two methods: `update`, called once per iteration with all detections of the teacher before any
filter, and then `thresholds`, which returns one value per class. A pseudo label counts if its score is *above* the
threshold of its class. RPN and box regression keep Soft Teacher's own rules (0.9, and the box uncertainty).
"""

from collections.abc import Sequence

from torch import Tensor, nn


class FixedThreshold(nn.Module):
    """One threshold for all classes: Soft Teacher's rule (paper sec. 4.2, theta = 0.9).

    Args:
        num_classes: number of foreground classes n.
        value: the threshold.
    """

    values: Tensor

    def __init__(self, num_classes: int, value: float = 0.9) -> None:
        super().__init__()
        self.register_buffer("values", Tensor(num_classes).fill_(value), persistent=False)

    def update(self, labels: Tensor, scores: Tensor, sizes: Sequence[int] = ()) -> None:
        """Observe the detections of the teacher; a fixed threshold ignores them.

        Args:
            labels: (D,) int64 classes of all detections, image by image, before any filter.
            scores: (D,) scores.
            sizes: number of detections of each image.
        """

    def thresholds(self, iteration: int, weights: Tensor | None) -> Tensor:
        """(n,) float32 threshold of each class.

        Args:
            iteration: iteration of the run, from 0.
            weights: (n + 1,) class weights of the classification loss, None if it has none.
        """
        return self.values
