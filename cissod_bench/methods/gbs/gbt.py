"""Gradient-based thresholding (GbT), paper sec. 3.3: a threshold for each class, from its gradients and its scores."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from cissod_bench.ssod.one_hot import one_hot


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
        cold_start: "mean" divides a young average by what has gone into it; "count" divides the sum of the first 1,000
            scores of a class by 1,000, as the release does, so that rare classes start at the lower bound.
    """

    score_sum: Tensor
    score_mass: Tensor
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
        self.register_buffer("score_mass", torch.zeros(num_classes))
        self.register_buffer("score_count", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, labels: Tensor, scores: Tensor, sizes: Sequence[int] = ()) -> None:
        """Put the scores of one iteration into their classes' averages; equal on all ranks.

        k detections of a class weigh as much as k single steps of the average would: eta^k remains of what was.

        Args:
            labels: (D,) int64 classes of all detections, before any filter.
            scores: (D,) scores.
            sizes: number of detections of each image; not needed here.
        """
        batch = torch.stack([scores.float(), torch.ones_like(scores, dtype=torch.float32)])
        batch = batch @ one_hot(labels, len(self.score_sum))
        all_reduce(batch)
        total, count = batch
        keep = self.eta**count
        self.score_sum.mul_(keep).add_((1 - keep) * total / count.clamp(min=1.0))
        self.score_mass.mul_(keep).add_(1 - keep)
        self.score_count.add_(count)

    def mean_scores(self) -> Tensor:
        """(n,) average score of each class; 0 for classes without detections."""
        mean = self.score_sum / self.score_mass.clamp(min=1e-12)
        return mean * (self.score_count / 1000).clamp(max=1.0) if self.cold_start == "count" else mean

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
