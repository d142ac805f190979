"""Thresholds by rank (LabelMatch, Chen et al., CVPR 2022): pseudo labels follow the class distribution of D_l.

If unlabelled images hold a class as often as labelled ones do, K of them hold K cnt_c / N_l boxes of class c, where D_l
has N_l images and cnt_c boxes of it. Of these the best 20 % are to count: the threshold of the class is the score of
rank floor(0.2 K cnt_c / N_l), from 0, among the class's detections in the last K images, and at least 0.05. What is
below 0.5 has no effect in the framework, whose pseudo labels are detections above 0.5 (Soft Teacher's first filter).

This is the on-line variant of the authors' code: scores come from the training teacher. It keeps the best 100
detections of each image, and not the best 20 of each class and image, so that memory does not grow with the number of
classes. Our reading: short runs never see the original's 12,800 images on many GPUs, so the thresholds count from a
given part of the run on, whatever the window holds then.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from cissod_bench.methods.base import Context
from cissod_bench.ssod.component import component

PER_IMAGE = 100
"""Detections kept of each image."""


def rank_threshold(context: Context, theta: float | None, warmup: float, **changes: Any) -> dict[str, Any]:
    """Configuration of the policy for a run.

    Args:
        setting: gives the class counts of D_l, each at least 1, and the length of the run.
        theta: the threshold before the ranks count, None for the detector preset's.
        warmup: the part of the run whose detections are only collected, unless the window is full before.
        changes: other arguments of `RankThreshold`.
    """
    return component(
        RankThreshold,
        boxes_per_image=[max(boxes, 1) / context.labeled_images for boxes in context.labeled_boxes],
        warmup=round(warmup * context.iterations),
        theta=context.theta if theta is None else theta,
        **changes,
    )


def scores_at_ranks(labels: Tensor, scores: Tensor, ranks: Tensor) -> Tensor:
    """For each class the score of a given rank among its detections.

    Args:
        labels: (D,) integers in [0, n], n for nothing.
        scores: (D,) scores.
        ranks: (n,) int64 rank from 0 (best); ranks beyond the last detection mean the last.

    Returns:
        (n,) scores, 0 for a class without detections.
    """
    scores, order = scores.sort(descending=True)
    labels, by_class = labels.long()[order].sort(stable=True)
    scores = scores[by_class]
    count = ranks.new_zeros(len(ranks) + 1).index_add_(0, labels, torch.ones_like(labels))[:-1]
    first = count.cumsum(0) - count
    found = scores[(first + torch.minimum(ranks, count - 1)).clamp(min=0)]
    return torch.where(count > 0, found, 0.0)


class RankThreshold(nn.Module):
    """Threshold policy: of the boxes that a class should have, the best part counts.

    Args:
        num_classes: number of foreground classes n.
        boxes_per_image: for each class the expected number of boxes in an image.
        fraction: part of the expected boxes that is to count.
        window: number K of images.
        warmup: iterations with detections before the ranks count, unless the window is full before.
        interval: iterations between two updates.
        theta: the threshold until then.
        lowest: lower bound of the thresholds (LabelMatch: 0.05).

    Attributes:
        scores, labels: (K, 100) ring of the detections of the last K images of all ranks, labels n where there is none.
        seen: number of images so far.
        updates: number of iterations so far; a burn-in without detections is not among them.
        values: (n,) thresholds in use.
    """

    scores: Tensor
    labels: Tensor
    seen: Tensor
    updates: Tensor
    values: Tensor
    expected: Tensor

    def __init__(
        self,
        num_classes: int,
        boxes_per_image: Sequence[float],
        fraction: float = 0.2,
        window: int = 12_800,
        warmup: int = 0,
        interval: int = 100,
        theta: float = 0.9,
        lowest: float = 0.05,
    ) -> None:
        super().__init__()
        if len(boxes_per_image) != num_classes:
            raise ValueError(f"{len(boxes_per_image)} values in boxes_per_image for {num_classes} classes.")
        self.window, self.warmup, self.interval, self.lowest = window, warmup, interval, lowest
        expected = fraction * torch.tensor(boxes_per_image, dtype=torch.float64)
        self.register_buffer("expected", expected, persistent=False)
        self.register_buffer("scores", torch.zeros(window, PER_IMAGE))
        # 16 bits would do, but neither gloo nor NCCL knows them.
        self.register_buffer("labels", torch.full((window, PER_IMAGE), num_classes, dtype=torch.int32))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("values", torch.full((num_classes,), theta))

    @torch.no_grad()
    def update(self, labels: Tensor, scores: Tensor, sizes: Sequence[int]) -> None:
        """Put the detections of one iteration into the ring, those of all ranks on every rank.

        Args:
            labels: (D,) int64 classes of all detections, image by image, each image's best first.
            scores: (D,) scores.
            sizes: number of detections of each image; equally many images on every rank.
        """
        batch = self.scores.new_zeros(2, len(sizes), PER_IMAGE)
        batch[1] = len(self.values)
        start = 0
        for image, size in enumerate(sizes):
            kept = slice(start, start + min(size, PER_IMAGE))
            batch[0, image, : min(size, PER_IMAGE)] = scores[kept]
            batch[1, image, : min(size, PER_IMAGE)] = labels[kept].to(batch.dtype)
            start += size
        every = torch.cat(all_gather(batch), dim=1)
        slots = (self.seen + torch.arange(every.shape[1], device=every.device)) % self.window
        self.scores[slots] = every[0]
        self.labels[slots] = every[1].to(self.labels.dtype)
        self.seen += every.shape[1]
        self.updates += 1

    @torch.no_grad()
    def thresholds(self, iteration: int, weights: Tensor | None) -> Tensor:
        """(n,) float32 threshold of each class; see `FixedThreshold.thresholds`."""
        if iteration % self.interval == 0:
            ready = (self.seen >= self.window) | (self.updates > self.warmup)
            self.values.copy_(torch.where(ready, self._ranked(), self.values))
        return self.values

    def _ranked(self) -> Tensor:
        """Thresholds from what the window holds."""
        images = self.seen.clamp(max=self.window)
        # The number of boxes is a product of integers and 0.2: what should be whole must not end below it.
        ranks = (self.expected * images + 1e-9).floor().long()
        found = scores_at_ranks(self.labels.flatten(), self.scores.flatten(), ranks).clamp(min=self.lowest)
        # In LabelMatch a score at the threshold counts; the framework takes scores above it.
        return torch.nextafter(found, torch.zeros_like(found))
