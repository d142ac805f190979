"""Refinements: modules between detections and thresholds that change pseudo labels and may add a loss."""

from typing import Any, Protocol

from mmengine.structures import InstanceData
from torch import Tensor

Features = tuple[Tensor, ...]


class Refinement(Protocol):
    """Interface of a refinement, a torch module with its state in buffers.

    Built with `num_classes`, the number of foreground classes, and `channels`, the width of the RoI head's shared
    layers. All ranks call the three methods in step, so collectives are allowed.
    """

    def observe(self, teacher: Any, inputs: Tensor, labels: list[InstanceData]) -> None:
        """Observe the labelled images, first thing in an iteration.

        Args:
            teacher: the teacher detector.
            inputs: (B, 3, H, W) images.
            labels: for each image its ground truth, `bboxes` and `labels`.
        """

    def refine(self, teacher: Any, features: Features, pseudo: list[InstanceData], iteration: int) -> None:
        """Change labels and scores of pseudo labels in place; added fields are passed on to `loss`.

        Args:
            teacher: the teacher detector.
            features: the teacher's feature maps of the weakly augmented views.
            pseudo: for each image the detections above the initial threshold, in the view's coordinates.
            iteration: iteration of the run, from 0.
        """

    def loss(self, student: Any, features: Features, pseudo: list[InstanceData], iteration: int) -> dict[str, Any]:
        """Losses to add as they are, not weighted by lambda_u; the same names in every iteration.

        Args:
            student: the student detector.
            features: the student's feature maps of the strongly augmented views.
            pseudo: the refined pseudo labels in these views.
            iteration: iteration of the run, from 0.
        """
