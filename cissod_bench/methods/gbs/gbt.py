"""Gradient-based thresholding (GbT), paper sec. 3.3: a threshold for each class, from its gradients and its scores."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from cissod_bench.ssod.one_hot import one_hot

COLD = 1000
"""Detections of a class before its scores have a moving average (release)."""


def score_thresholds(mean_scores: Tensor, theta: float) -> Tensor:
    """theta^c of the release: `theta * s_i / mean(s)`, where s_i is the mean score of the detections of class i.

    Args:
        mean_scores: (n,) mean scores, 0 for a class without detections; the mean runs over all n classes.
        theta: threshold of an average class (0.9).

    Returns:
        (n,) thresholds before bounds; `theta` for all as long as there are no detections.
    """
    mean = mean_scores.mean()
    return torch.where(mean > 0, theta * mean_scores / mean.clamp(min=1e-12), torch.full_like(mean_scores, theta))


def gradient_thresholds(weights: Tensor, theta: float) -> Tensor:
    """theta^p of eq. (9), `min(theta, theta / w_i)`, for the n foreground classes of (n + 1,) weights."""
    return (theta / weights[:-1]).clamp(max=theta)


class ClassThreshold(nn.Module):
    """Thresholds by class from mean scores, from gradients, or the smaller of both (GbT, paper sec. 3.3 and Table 5).

    Args:
        num_classes: number of foreground classes n.
        policy: "score" (theta^c), "gradient" (theta^p) or "gbt" (the smaller).
        theta: the threshold that is adapted (paper: 0.9); used as it is during the warm-up.
        bounds: smallest and largest threshold. Below 0.5 there are no pseudo labels (initial filter of Soft Teacher).
        eta: coefficient, per detection, of the moving average of a class's scores (paper: eta_p = 0.9995).
        warmup: iterations with the fixed threshold theta.
        cold_start: what the mean of a class is before its 1,000th detection, from which on the moving average starts:
            "mean", the sum of the scores over their number; "count", the sum over 1,000, as in the release, so that
            rare classes start at the lower bound.

    Attributes:
        score_sum: (n,) float32, sum of the scores of a class's first 1,000 detections, then 1,000 times the moving
            average, which starts from it.
        score_count: (n,) float32, number of detections of each class.
    """

    score_sum: Tensor
    score_count: Tensor

    def __init__(
        self,
        num_classes: int,
        policy: Literal["score", "gradient", "gbt"] = "gbt",
        theta: float = 0.9,
        bounds: tuple[float, float] = (0.5, 0.9),
        eta: float = 0.9995,
        warmup: int = 0,
        cold_start: Literal["mean", "count"] = "mean",
    ) -> None:
        super().__init__()
        self.policy, self.theta, self.bounds = policy, theta, bounds
        self.eta, self.warmup, self.cold_start = eta, warmup, cold_start
        self.register_buffer("score_sum", torch.zeros(num_classes))
        self.register_buffer("score_count", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, labels: Tensor, scores: Tensor, sizes: Sequence[int] = ()) -> None:
        """Put the scores of one iteration into their classes' averages; equal on all ranks.

        They have no order: k detections of a class count as k steps of a loop, each with their mean score. Those up to
        the class's 1,000th are added to the sum, and of the average eta^m remains after the other m.

        Args:
            labels: (D,) int64 classes of all detections, before any filter.
            scores: (D,) scores.
            sizes: number of detections of each image; not needed here.
        """
        batch = torch.stack([scores.float(), torch.ones_like(scores, dtype=torch.float32)])
        batch = batch @ one_hot(labels, len(self.score_sum))
        all_reduce(batch)
        total, count = batch
        mean = total / count.clamp(min=1.0)
        summed = torch.minimum(count, (COLD - self.score_count).clamp(min=0.0))
        keep = self.eta ** (count - summed)
        self.score_sum.add_(summed * mean).mul_(keep).add_((1 - keep) * COLD * mean)
        self.score_count.add_(count)

    def mean_scores(self) -> Tensor:
        """(n,) average score of each class; 0 for classes without detections."""
        return self.score_sum / (COLD if self.cold_start == "count" else self.score_count.clamp(1.0, COLD))

    def thresholds(self, iteration: int, weights: Tensor | None) -> Tensor:
        """(n,) float32 threshold of each class; see `FixedThreshold.thresholds`.

        Raises:
            ValueError: a policy that needs class weights, and a loss that has none.
        """
        if iteration < self.warmup:
            return torch.full_like(self.score_sum, self.theta)
        candidates = []
        if self.policy in ("score", "gbt"):
            candidates.append(score_thresholds(self.mean_scores(), self.theta))
        if self.policy in ("gradient", "gbt"):
            if weights is None:
                raise ValueError(f"The threshold policy {self.policy!r} needs a loss with class weights (GbR).")
            candidates.append(gradient_thresholds(weights, self.theta))
        return torch.stack(candidates).min(dim=0).values.clamp(*self.bounds)
