"""C2AM loss (Wang et al., CVPR 2022) on Soft Teacher with RFS; row "C2AM" of the paper's Tables 1-3.

A cosine classifier without bias: logit i is s cos(theta_i), theta_i the angle between the RoI's feature and the weight
vector W_i. The norms |W_i| grow with a class's frequency; each competitor j of the target class i gets the margin
m_ij = max(0, alpha / pi * ln(|W_i| / |W_j|)) on its angle, so that samples of classes with large weights push those
with small ones away less. Norms are detached. There is no margin at test time: softmax(s cos). s = 30 and alpha = 0.5
are the paper's.

Our reading: no public code exists, and no source says how the background is handled. Here it is one more class with
its own weight vector and takes part in the margins like any other; `background_margin=False` leaves it out.
"""

import math
from typing import Any

import msgspec
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import NotNegative, Positive, UnitInterval
from cissod_bench.ssod.component import component


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of C2AM."""

    scale: Positive = 30.0
    """Scale s of the cosine logits (C2AM: 30)."""
    alpha: NotNegative = 0.5
    """Strength of the margins; 0 is a plain cosine classifier (C2AM: 0.5)."""
    background_margin: bool = True
    """Whether the background takes part in the margins."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Cosine classifier with class-aware angular margins, RFS."""
    return MethodConfig(
        loss_cls=component(
            AngularMarginLoss,
            scale=options.scale,
            alpha=options.alpha,
            background_margin=options.background_margin,
        ),
        bbox_head=component(CosineBBoxHead, cls_predictor_cfg=component(CosineLinear, scale=options.scale)),
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )


class CosineLinear(nn.Linear):
    """s cos between (R, D) features and (C, D) weights, without bias, in single precision under autocast too.

    Args:
        in_features: D.
        out_features: C.
        scale: s.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(R, C) float32 logits in [-s, s]; a zero feature has cosine 0 with everything."""
        kind = "cpu" if features.is_meta else features.device.type  # without values, autocast has no kind of its own
        with torch.autocast(kind, enabled=False):
            directions = functional.normalize(features.float(), dim=1)
            return self.scale * functional.linear(directions, functional.normalize(self.weight.float(), dim=1))


class CosineBBoxHead(ConvFCBBoxHead):
    """mmdet's head, which tells its classification loss the norms of the classifier's weights at each forward."""

    def __init__(self, num_shared_fcs: int = 2, **options: Any) -> None:
        super().__init__(num_shared_fcs=num_shared_fcs, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and box deltas of (R, C, 7, 7) RoI features."""
        self.loss_cls.norms = self.fc_cls.weight.detach().float().norm(dim=1)
        scores, deltas = super().forward(x)
        return scores, deltas


def margins(norms: Tensor, labels: Tensor, alpha: float, background_margin: bool = True) -> Tensor:
    """Angle by which each competitor of each RoI's target is moved away.

    Args:
        norms: (n + 1,) norms of the classifier's weights, background last.
        labels: (R,) int64 targets.
        alpha: strength.
        background_margin: False for no margin between the background and the other classes.

    Returns:
        (R, n + 1) radians in [0, pi], 0 for the target itself.
    """
    logs = norms.clamp(min=1e-12).log()
    margin = (alpha / math.pi * (logs[labels][:, None] - logs)).clamp(0.0, math.pi)
    if not background_margin:
        background = len(norms) - 1
        margin = margin * (labels != background)[:, None]
        margin[:, background] = 0.0
    return margin


def shift_angle(cosine: Tensor, margin: Tensor) -> Tensor:
    """cos(min(theta + margin, pi)) for cos(theta) in [-1, 1], with bounded gradients."""
    sine = (1 - cosine**2).clamp(min=1e-7).sqrt()
    beyond = cosine < -margin.cos()  # theta > pi - margin
    return torch.where(beyond, -1.0, cosine * margin.cos() - sine * margin.sin())


class AngularMarginLoss(nn.Module):
    """Cross entropy on cosine logits with class-aware margins on the competitors.

    Args:
        scale: scale s of the logits.
        alpha: strength of the margins.
        background_margin: whether the background takes part in them.

    Attributes:
        norms: (n + 1,) norms of the weights that made the logits; the head sets them at each forward.
    """

    norms: Tensor

    def __init__(self, scale: float = 30.0, alpha: float = 0.5, background_margin: bool = True) -> None:
        super().__init__()
        self.scale, self.alpha, self.background_margin = scale, alpha, background_margin

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
            cls_score: (R, n + 1) logits s cos.
            labels: (R,) int64, n for the background.
            label_weights: (R,) weight of each RoI, 1 by default.
            avg_factor: what the sum over RoIs is divided by; their number by default.
            reduction_override: "none" for (R,) values, "sum", or "mean" (the default).
        """
        cosine = (cls_score.float() / self.scale).clamp(-1.0, 1.0)
        margin = margins(self.norms, labels, self.alpha, self.background_margin)
        losses = functional.cross_entropy(self.scale * shift_angle(cosine, margin), labels, reduction="none")
        loss: Tensor = weight_reduce_loss(losses, label_weights, reduction_override or "mean", avg_factor)
        return loss
