"""EQLv2 (Tan et al., Equalization Loss v2, CVPR 2021) on Soft Teacher with RFS; row "EQLv2" of the paper's Tables 1-3.

The classifier has n + 1 sigmoid outputs, the last of which says "background" (the objectness branch). For each
foreground class the loss accumulates the gradients that it gets as a positive and as a negative; their ratio g decides
how strongly the class is pushed: with f(g) = 1 / (1 + exp(-gamma (g - mu))), negatives weigh f(g) and positives
1 + alpha (1 - f(g)). Formulas and constants: paper sec. 4, and the authors' code.

Our reading for semi-supervised detection, which no source describes: label weights (the teacher's background scores)
weigh a RoI's loss and its gradients; both training branches feed the ratios, which move once per iteration; the
teacher's background score is the sigmoid of the background output. mmdet's `EQLV2Loss` is not used: it ignores label
weights and `avg_factor`, and its scores are silently soft-maxed at test time.
"""

from typing import Any

import msgspec
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import NotNegative, UnitInterval
from cissod_bench.ssod.component import component

PRIOR_BIAS = -6.9068
"""Initial bias of every output: log(p / (1 - p)) for a prior probability p of 0.001."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of EQLv2."""

    gamma: NotNegative = 12.0
    """Steepness of the mapping from gradient ratios to weights (EQLv2: 12)."""
    mu: NotNegative = 0.8
    """Gradient ratio at which negatives count half (EQLv2: 0.8)."""
    alpha: NotNegative = 4.0
    """Largest extra weight of positives (EQLv2: 4)."""
    unsup_factor: NotNegative = 1.0
    """Factor of the pseudo-labelled branch in the accumulated gradients (4 would be its weight in the total loss)."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Sigmoid classifier with equalised gradients, RFS."""
    return MethodConfig(
        loss_cls=component(
            EqualizationLossV2,
            num_classes=context.num_classes,
            gamma=options.gamma,
            mu=options.mu,
            alpha=options.alpha,
            unsup_factor=options.unsup_factor,
        ),
        bbox_head={"init_cfg": _initialisation()},
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )


def _initialisation() -> list[dict[str, Any]]:
    """That of mmdet's `Shared2FCBBoxHead`, but for the bias of the classifier."""
    return [
        {"type": "Normal", "std": 0.01, "bias": PRIOR_BIAS, "override": {"name": "fc_cls"}},
        {"type": "Normal", "std": 0.001, "override": {"name": "fc_reg"}},
        {"type": "Xavier", "distribution": "uniform", "override": {"name": "shared_fcs"}},
    ]


class EqualizationLossV2(nn.Module):
    """Sigmoid cross entropy whose weights balance each class's positive and negative gradients.

    Args:
        num_classes: number of foreground classes n.
        gamma: steepness of the mapping f.
        mu: ratio at which f is one half.
        alpha: largest extra weight of positives.
        unsup_factor: factor of the pseudo-labelled branch in the accumulated gradients.

    Attributes:
        gradients: (2, n) sums of positive and of negative gradients since the start, over all ranks.
        ratio: (n,) positive sum over negative sum; 100 before the first iteration, which makes all weights 1.
    """

    gradients: Tensor
    ratio: Tensor
    pending: Tensor  # this iteration's gradients of this rank
    # mmdet takes the test activation from here; `custom_activation` would also ask for an accuracy.
    custom_cls_channels = True
    custom_activation = False

    def __init__(
        self, num_classes: int, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0, unsup_factor: float = 1.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.unsup_factor = unsup_factor
        self.branch = "off"
        self.register_buffer("gradients", torch.zeros(2, num_classes))
        self.register_buffer("ratio", torch.full((num_classes,), 100.0))
        self.register_buffer("pending", torch.zeros(2, num_classes), persistent=False)

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of the classifier: the classes and the background."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, n + 1) scores of (R, n + 1) logits: sigmoid times objectness, the background's sigmoid last."""
        scores = cls_score.float().sigmoid()
        background = scores[:, -1:]
        return torch.cat([scores[:, :-1] * (1 - background), background], dim=1)

    def class_weights(self) -> tuple[Tensor, Tensor]:
        """(n + 1,) weights of positives and (n + 1,) of negatives; both 1 for the background."""
        negative = torch.sigmoid(self.gamma * (self.ratio - self.mu))
        negative = torch.cat([negative, negative.new_ones(1)])
        return 1 + self.alpha * (1 - negative), negative

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss, summed over classes.

        Args:
            cls_score: (R, n + 1) logits.
            labels: (R,) int64, n for the background.
            label_weights: (R,) weight of each RoI, 1 by default.
            avg_factor: what the sum over RoIs is divided by; their number by default.
            reduction_override: "none" for (R,) values, "sum", or "mean" (the default).
        """
        logits = cls_score.float()
        target = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
        positive, negative = self.class_weights()
        weight = torch.where(target > 0, positive, negative)
        losses = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="none").sum(dim=1)
        if self.branch != "off":
            self._note(logits.detach(), target, weight, label_weights)
        loss: Tensor = weight_reduce_loss(losses, label_weights, reduction_override or "mean", avg_factor)
        return loss

    @torch.no_grad()
    def _note(self, logits: Tensor, target: Tensor, weight: Tensor, label_weights: Tensor | None) -> None:
        """Add the absolute gradients of the weighted loss on this rank, background output left out."""
        gradient = weight * (logits.sigmoid() - target).abs()
        if label_weights is not None:
            gradient = gradient * label_weights[:, None]
        factor = self.unsup_factor if self.branch == "unsup" else 1.0
        sums = torch.stack([(gradient * target).sum(dim=0), (gradient * (1 - target)).sum(dim=0)])
        self.pending += factor * sums[:, :-1]

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> None:
        """Move the ratios by what all ranks noted in this iteration.

        Not done where the loss is computed: a rank whose images yield no RoI does not compute it, and the others would
        wait for its sums.
        """
        all_reduce(self.pending)
        self.gradients += self.pending
        self.pending.zero_()
        ratio = self.gradients[0] / (self.gradients[1] + 1e-10)
        self.ratio.copy_(torch.where(self.gradients.any(), ratio, self.ratio))
