"""Focal loss on Soft Teacher: row "FL" of the paper's Table 4, and with gamma = 1.5 Unbiased Teacher's loss.

The softmax form without alpha, (1 - p_t)^gamma * -log p_t, on all n + 1 classes (Liu et al., Unbiased Teacher, ICLR
2021); gamma = 1 is the CI-SSOD authors' value, gamma = 0 is cross entropy. Teacher scores are plain softmax scores.

Our reading: Table 4's rows without CrS have no RFS either, since its first row is Table 1's Soft Teacher; so labelled
images are sampled uniformly unless `rfs` is set.
"""

import msgspec
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import NotNegative, UnitInterval
from cissod_bench.methods.softmax_focal import softmax_focal
from cissod_bench.ssod.component import component


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the focal loss."""

    gamma: NotNegative = 1.0
    """Focusing parameter (CI-SSOD's release 1, Unbiased Teacher 1.5)."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    rfs: bool = False
    """Repeat labelled images by RFS, as the baselines of Tables 1-3 do."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS, where `rfs` is set; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Softmax focal loss."""
    threshold = repeat_threshold(context, options.threshold)
    return MethodConfig(
        loss_cls=component(SoftmaxFocal, gamma=options.gamma),
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=threshold if options.rfs else None,
    )


class SoftmaxFocal(nn.Module):
    """Softmax focal loss with label weights, in single precision.

    Args:
        gamma: focusing parameter, >= 0.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            cls_score: (R, n + 1) logits.
            labels: (R,) int64, n for the background.
            label_weights: (R,) weight of each RoI, 1 by default.
            avg_factor: what the sum over RoIs is divided by; their number by default.
            reduction_override: "none" for (R,) values, "sum", or "mean" (the default).
        """
        losses = softmax_focal(cls_score.float(), labels, self.gamma)
        loss: Tensor = weight_reduce_loss(losses, label_weights, reduction_override or "mean", avg_factor)
        return loss
