"""DeFRCN's heads behind gradient decoupled layers, and what changes in them before the second stage."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.ssod.model.roi_head import BatchedRoIHead
from cissod_bench.ssod.model.rpn_head import BatchedRPNHead
from cissod_bench.ssod.refinement import Features


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # A factor of 0 gives zeros, not nothing: distributed training waits for the gradient of every parameter.
        return gradients[0] * ctx.factor, None


def decouple(values: Tensor, factor: float) -> Tensor:
    """The gradient decoupled layer: `values` of any shape, whose gradient is multiplied by `factor` on its way back."""
    result: Tensor = _ScaledGradient.apply(values, factor)
    return result


class Decoupling(nn.Module):
    """What stands between shared features and a head: `weight * decouple(x) + bias`, the same for all levels.

    Args:
        channels: channels C of the features.
        factor: lambda.
    """

    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Features) -> Features:
        """Feature maps, each (B, C, H, W), as the head sees them."""
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        return tuple(decouple(level, self.factor) * weight + bias for level in features)


class DecoupledRPNHead(BatchedRPNHead):
    """mmdet's head behind a `Decoupling`: every way through it goes through `forward`."""

    def __init__(self, *args: Any, factor: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.decoupling = Decoupling(self.in_channels, factor)

    def forward(self, x: Features) -> Any:
        """Scores and deltas of all anchors, by level."""
        return super().forward(self.decoupling(x))


class DecoupledRoIHead(BatchedRoIHead):
    """mmdet's head behind a `Decoupling`: every way through it goes through `_bbox_forward`."""

    def __init__(self, *args: Any, factor: float = 0.75, **options: Any) -> None:
        super().__init__(*args, **options)
        self.decoupling = Decoupling(self.bbox_roi_extractor.out_channels, factor)

    def _bbox_forward(self, x: Features, rois: Tensor) -> dict[str, Tensor]:
        output: dict[str, Tensor] = super()._bbox_forward(
            self.decoupling(x[: self.bbox_roi_extractor.num_inputs]), rois
        )
        return output


class DropoutLinear(nn.Linear):
    """A classifier with dropout of its (R, D) input at `rate`, 0 until somebody sets it."""

    rate: float = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """(R, C) logits."""
        return super().forward(functional.dropout(input, self.rate, self.training))


def start_fine_tuning(student: nn.Module, roi_gradient: float, dropout: float) -> None:
    """Turn a detector to the second stage: lambda of the RoI head, dropout, frozen RoI features."""
    head: Any = student.roi_head
    head.decoupling.factor = roi_gradient
    head.bbox_head.fc_cls.rate = dropout
    for layers in (head.bbox_head.shared_convs, head.bbox_head.shared_fcs):
        for parameter in layers.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None  # optimisers leave a parameter without gradient alone, weight decay and all


@torch.no_grad()
def reinitialise(bbox_head: Any, classes: Sequence[int], generator: torch.Generator) -> None:
    """Reinitialise the rows of some classes in the last layers: weights from N(0, 0.01^2), biases 0.

    Args:
        bbox_head: mmdet's box head with n foreground classes; its regressor may have four rows for each, or in all.
        classes: labels in [0, n).
        generator: on the CPU, so that all devices get the same numbers.
    """
    rows = torch.as_tensor(classes, dtype=torch.long)
    layers = [(bbox_head.fc_cls, rows)]
    if not bbox_head.reg_class_agnostic:
        layers.append((bbox_head.fc_reg, (4 * rows[:, None] + torch.arange(4)).flatten()))
    for layer, chosen in layers:
        new = torch.empty(len(chosen), layer.weight.shape[1]).normal_(0, 0.01, generator=generator)
        layer.weight[chosen.to(layer.weight.device)] = new.to(layer.weight)
        layer.bias[chosen.to(layer.bias.device)] = 0.0
