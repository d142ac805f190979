"""DeFRCN (Qiao et al., Decoupled Faster R-CNN for Few-Shot Object Detection, ICCV 2021) on Soft Teacher; row "DeFRCN".

RPN and RoI head see the shared features through a gradient decoupled layer each: forward the identity, backward the
gradient times lambda (0 from the RPN), followed by an affine layer, one weight and one bias a channel, which gets the
full gradient. Training has two stages. The first learns the majority classes. Before the second, the rows of the
minority classes in the classifier (and in the box regressor, where it has rows of classes) are drawn anew; it trains on
a balanced set, with the RoI features frozen, dropout before the classifier and lambda = 0.01 for the RoI head. At test
time the scores of minority classes may be calibrated by prototypes (`calibration.py`). Constants: the authors' code.

Our reading for semi-supervised detection and FPN, which no source describes:
* the layers stand behind the FPN, which is part of the shared trunk; one affine layer per head serves all its levels;
* the frozen RoI features are the two shared layers of the box head (in the original: res5 of a C4 detector); the
  backbone is frozen no further than the detector preset freezes it;
* the classifier has its full size from the start, and no minority box is a label in the first stage;
* both stages are Soft Teacher, with D_u and the same thresholds, and share the run: the second is its last 5 % (6,000
  of 116,000 iterations in the original). The teacher starts it as a copy of the student;
* D_m of the first stage is sampled by RFS over D_m, as all baselines sample D_l, at the run's own learning rate;
* the second stage starts a new optimiser at the preset's learning rate (0.01 for `r50-fpn`, the original's), without
  warm-up, / 10 after 80 % of the stage (4,800 of 6,000 iterations), with weight decay 5e-5;
* its labelled images are D_s and, from the rarest class on, images of D_m until each class has K boxes, all boxes of an
  image kept. Candidates come in the order of a hash of the run's seed and the image id;
* with groups by frequency (scenario 2) the majority is f, the minority c and r. There a split has no D_s: D_m is every
  labelled image with a box of f, whose other boxes are left out in the first stage, and the balanced set is drawn for
  all classes from all labelled images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from mmdet.registry import MODELS
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.baselines.defrcn.calibration import check_imagenet_file
from cissod_bench.errors import UserError
from cissod_bench.methods.base import Parts, Setting, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import Count, Inside, NotNegative, Positive, UnitInterval
from cissod_bench.ssod.model.roi_head import BatchedRoIHead
from cissod_bench.ssod.model.rpn_head import BatchedRPNHead

Features = tuple[Tensor, ...]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of DeFRCN."""

    rpn_gradient: UnitInterval = 0.0
    """Part lambda of the RPN's gradient that reaches the shared features, in both stages."""
    roi_gradient: UnitInterval = 0.75
    """Part lambda of the RoI head's gradient that reaches the shared features in the first stage."""
    tuned_roi_gradient: UnitInterval = 0.01
    """The same in the second stage."""
    fine_tuning: Inside = 0.05
    """Part of the run that is the second stage."""
    shots: Count = 10
    """Boxes K that each class has at least in the second stage, if it has so many labelled ones."""
    dropout: UnitInterval = 0.8
    """Probability that an input of the classifier is dropped in the second stage."""
    learning_rate: Positive = 1.0
    """Learning rate of the second stage in units of the detector preset's."""
    weight_decay: NotNegative = 5e-5
    """Weight decay of the second stage."""
    pcb: str | None = None
    """File with torchvision's ResNet-101 for ImageNet, to calibrate scores of minority classes at test time."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images in the first stage; the task's by default."""


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


@MODELS.register_module()
class DecoupledRPNHead(BatchedRPNHead):
    """mmdet's head behind a `Decoupling`: every way through it goes through `forward`."""

    def __init__(self, *args: Any, factor: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.decoupling = Decoupling(self.in_channels, factor)

    def forward(self, x: Features) -> Any:
        """Scores and deltas of all anchors, by level."""
        return super().forward(self.decoupling(x))


@MODELS.register_module()
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


@MODELS.register_module()
class DropoutLinear(nn.Linear):
    """A classifier with dropout of its (R, D) input at `rate`, 0 until somebody sets it."""

    rate: float = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """(R, C) logits."""
        return super().forward(functional.dropout(input, self.rate, self.training))


def parts(setting: Setting, options: Options) -> Parts:
    """Decoupled heads, and two stages.

    Raises:
        UserError: the split has no majority class, or the file for calibration does not fit.
    """
    if len(setting.minority) == setting.num_classes:
        raise UserError(
            "defrcn learns the majority classes first (group maj, or f where groups go by frequency), and the split "
            "has none. Make a split with a larger labelled part, or choose another method."
        )
    if options.pcb is not None:
        check_imagenet_file(Path(options.pcb))
    threshold = repeat_threshold(setting, options.threshold)
    stages = {
        "type": "TwoStageHook",
        "start": setting.iterations - max(1, round(options.fine_tuning * setting.iterations)),
        "minority": setting.minority,
        "minority_images": str(setting.minority_images),
        "threshold": threshold,
        "shots": options.shots,
        "roi_gradient": options.tuned_roi_gradient,
        "dropout": options.dropout,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "pcb": options.pcb,
    }
    return Parts(
        bbox_head={"cls_predictor_cfg": {"type": "DropoutLinear"}},
        detector={
            "rpn_head": {"type": "DecoupledRPNHead", "factor": options.rpn_gradient},
            "roi_head": {"type": "DecoupledRoIHead", "factor": options.roi_gradient},
        },
        threshold=fixed_threshold(setting, options.theta),
        labeled_repeat=threshold,
        hooks=[stages],
    )


def start_fine_tuning(student: nn.Module, roi_gradient: float, dropout: float) -> None:
    """Turn a detector to the second stage: lambda of the RoI head, dropout, frozen RoI features."""
    head: Any = student.roi_head
    head.decoupling.factor = roi_gradient
    head.bbox_head.fc_cls.rate = dropout
    for parameter in head.bbox_head.shared_fcs.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None  # optimisers leave a parameter without gradient alone, weight decay and all


@torch.no_grad()
def reinitialise(bbox_head: Any, classes: Sequence[int], generator: torch.Generator) -> None:
    """Draw the rows of some classes in the last layers anew: weights from N(0, 0.01^2), biases 0.

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


def balanced_images(labels: Sequence[Int], chosen: Bool, order: Int, num_classes: int, shots: int) -> Bool:
    """Images that give each class enough boxes: those chosen already, and more of them where a class needs them.

    Classes are served from the rarest on (fewest boxes in all images, then by label). For each, images that hold it are
    taken in the given order while it has fewer than `shots` boxes; all boxes of an image taken count.

    Args:
        labels: for each of N images the (K,) labels of its boxes, one entry a box.
        chosen: (N,) images to start from.
        order: (N,) all images in the order in which they are candidates.
        num_classes: number of classes n.
        shots: boxes wanted of each class; a class with fewer in all images gets all of them.

    Returns:
        (N,) images.
    """
    chosen = chosen.copy()
    counts = np.stack([np.bincount(found, minlength=num_classes) for found in labels])
    have = counts[chosen].sum(axis=0)
    for label in np.argsort(counts.sum(axis=0), kind="stable"):
        for image in order[counts[order, label] > 0]:
            if have[label] >= shots:
                break
            if not chosen[image]:
                chosen[image] = True
                have += counts[image]
    return chosen
