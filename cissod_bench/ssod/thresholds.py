"""Threshold policies: which pseudo labels of the teacher train the RoI classifier.

A policy is a module with `update`, called once per iteration with every detection of the teacher before any filter, and
`thresholds`, one value per class, asked for afterwards. A pseudo label counts where its score is *above* its class's
threshold. RPN and box regression keep Soft Teacher's own rules (0.9, and the box uncertainty).
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
        """Take note of the teacher's detections: nothing to do for a fixed threshold.

        Args:
            labels: (D,) int64 classes of all detections, image by image, before any filter.
            scores: (D,) scores.
            sizes: number of detections of each image.
        """

    def thresholds(self, iteration: int, weights: Tensor | None) -> Tensor:
        """(n,) float32 threshold of each class.

        Args:
            iteration: of the run, from 0.
            weights: (n + 1,) class weights of the classification loss, None if it has none.
        """
        return self.values
