"""Seesaw loss (Wang et al., CVPR 2021) on Soft Teacher with RFS: a long-tail baseline that the paper lacks.

The classifier has n class outputs and two for objectness (foreground, background). Foreground RoIs train the class
outputs by a softmax whose competitors j of the target i are scaled by
* mitigation: (N_j / N_i)^p where class j has fewer samples so far than class i, which spares rare classes;
* compensation: (sigma_j / sigma_i)^q where j scores higher than i, which punishes mistakes again.
Scores are softmax(classes) times the foreground's objectness. p = 0.8, q = 2, the classifier on normalised features and
weights with temperature 20 are the paper's and mmdet's.

Our reading: RoIs of pseudo labels count as samples, and both training branches fill the counts. mmdet's `SeesawLoss`
gives the formulas of scores and accuracy; its forward is replaced, because it counts in every call whatever the call
is for, on each rank by itself and with a device synchronisation for every class that occurs.
"""

import msgspec
import torch
from mmdet.models.losses import SeesawLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmengine.dist import all_reduce
from torch import Tensor
from torch.nn import functional

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import NotNegative, UnitInterval
from cissod_bench.ssod.component import component


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the Seesaw loss."""

    p: NotNegative = 0.8
    """Exponent of the mitigation factor; 0 turns it off (Seesaw: 0.8)."""
    q: NotNegative = 2.0
    """Exponent of the compensation factor; 0 turns it off (Seesaw: 2)."""
    normalized: bool = True
    """Normalise features and weights in the classifier (temperature 20)."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Class and objectness outputs, Seesaw loss, RFS."""
    return MethodConfig(
        loss_cls=component(CountingSeesawLoss, num_classes=context.num_classes, p=options.p, q=options.q),
        # mmdet's layer is at temperature 20 by itself; its argument's name differs between versions.
        bbox_head={"cls_predictor_cfg": {"type": "NormedLinear"}} if options.normalized else {},
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )


def seesaw_factors(scores: Tensor, labels: Tensor, counts: Tensor, p: float, q: float, eps: float = 1e-2) -> Tensor:
    """log S_ij, the logarithm of the factor of each competitor j of each RoI's target i.

    Args:
        scores: (R, n) softmax scores.
        labels: (R,) int64 targets in [0, n).
        counts: (n,) samples so far; fewer than one counts as one.
        p: exponent of the mitigation.
        q: exponent of the compensation.
        eps: smallest score of the target in the ratio of scores.

    Returns:
        (R, n) log factors, 0 for the target itself.
    """
    seen = counts.clamp(min=1.0).log()
    mitigation = p * (seen - seen[labels][:, None]).clamp(max=0.0)
    own = scores.gather(1, labels[:, None]).clamp(min=eps)
    compensation = q * (scores / own).clamp(min=1.0).log()
    return (mitigation + compensation).scatter(1, labels[:, None], 0.0)


class CountingSeesawLoss(SeesawLoss):
    """Seesaw loss that counts in training branches only and over all ranks, and returns one value.

    Args:
        num_classes: number of foreground classes n.
        p: exponent of the mitigation.
        q: exponent of the compensation.

    Attributes:
        cum_samples: (n + 1,) RoIs of each class so far, over all ranks.
    """

    cum_samples: Tensor
    pending: Tensor

    def __init__(self, num_classes: int, p: float = 0.8, q: float = 2.0) -> None:
        super().__init__(num_classes=num_classes, p=p, q=q)
        self.branch = "off"
        # RoIs of this rank in this iteration
        self.register_buffer("pending", torch.zeros(num_classes + 1), persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Class loss of foreground RoIs plus objectness loss of all.

        Args:
            cls_score: (R, n + 2) logits: classes, foreground, background.
            labels: (R,) int64, n for the background.
            label_weights: (R,) weight of each RoI, 1 by default.
            avg_factor: what both sums over RoIs are divided by; the number of RoIs by default.
            reduction_override: "none" for (R,) values, "sum", or "mean" (the default).
        """
        logits = cls_score.float()
        if self.branch != "off":
            self.pending.index_add_(0, labels, torch.ones_like(logits[:, 0]))
        background = labels == self.num_classes
        target = labels.clamp(max=self.num_classes - 1)  # background RoIs are masked below
        classes, objectness = logits[:, :-2], logits[:, -2:]
        # As in the original, a batch counts before its loss is computed: here that of this rank.
        counts = (self.cum_samples + self.pending)[:-1]
        factors = seesaw_factors(classes.detach().softmax(dim=1), target, counts, self.p, self.q, self.eps)
        losses = functional.cross_entropy(classes + factors, target, reduction="none").masked_fill(background, 0.0)
        losses = losses + functional.cross_entropy(objectness, background.long(), reduction="none")
        loss: Tensor = weight_reduce_loss(losses, label_weights, reduction_override or "mean", avg_factor)
        return loss

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> None:
        """Add what all ranks counted in this iteration."""
        all_reduce(self.pending)
        self.cum_samples += self.pending
        self.pending.zero_()
