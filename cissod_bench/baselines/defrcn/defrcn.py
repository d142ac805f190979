"""DeFRCN (Qiao et al., Decoupled Faster R-CNN for Few-Shot Object Detection, ICCV 2021) on Soft Teacher; row "DeFRCN".

RPN and RoI head see the shared features through a gradient decoupled layer each: forward the identity, backward the
gradient times lambda (0 from the RPN), followed by an affine layer, one weight and one bias a channel, which gets the
full gradient. Training has two stages. The first learns the majority classes. Before the second, the rows of the
minority classes in the classifier (and in the box regressor, where it has rows of classes) are reinitialised; it trains
on a balanced set, with the RoI features frozen, dropout before the classifier and lambda = 0.01 for the RoI head. At
test time the scores of minority classes may be calibrated by prototypes (`calibration.py`). Constants: the authors'
code.

Our reading for semi-supervised detection and FPN, which no source describes:
* the layers stand behind the FPN, which is part of the shared trunk; each head has one affine layer for all levels;
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
  labelled image with a box of f, whose other boxes are left out in the first stage, and the balanced set is selected
  for all classes from all labelled images.
"""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.baselines.defrcn.calibration import check_imagenet_file
from cissod_bench.baselines.defrcn.heads import DecoupledRoIHead, DecoupledRPNHead, DropoutLinear
from cissod_bench.baselines.defrcn.stages import TwoStageHook
from cissod_bench.errors import UserError
from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import Count, Inside, NotNegative, Positive, UnitInterval
from cissod_bench.ssod.component import component

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of DeFRCN."""

    rpn_gradient: UnitInterval = 0.0
    """Part lambda of the RPN's gradient that reaches the shared features, in both stages (DeFRCN: 0)."""
    roi_gradient: UnitInterval = 0.75
    """Part lambda of the RoI head's gradient that reaches the shared features in the first stage (DeFRCN: 0.75)."""
    tuned_roi_gradient: UnitInterval = 0.01
    """The same in the second stage (DeFRCN on COCO: 0.01)."""
    fine_tuning: Inside = 0.05
    """Part of the run that is the second stage (ours: near the original's 6,000 of 116,000)."""
    shots: Count = 10
    """Boxes K that each class has at least in the second stage, if that many are labelled (DeFRCN: 10 shots)."""
    dropout: UnitInterval = 0.8
    """Probability that an input of the classifier is dropped in the second stage (DeFRCN: 0.8)."""
    learning_rate: Positive = 1.0
    """Learning rate of the second stage in units of the detector preset's (DeFRCN: 0.01, which is the paper's rate)."""
    weight_decay: NotNegative = 5e-5
    """Weight decay of the second stage (DeFRCN: 5e-5)."""
    pcb: str | None = None
    """File with torchvision's ResNet-101 for ImageNet, to calibrate scores of minority classes at test time."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images in the first stage; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Decoupled heads, and two stages.

    Raises:
        UserError: the split has no majority class, or the file for calibration does not fit.
    """
    if len(context.minority) == context.num_classes:
        raise UserError(
            "defrcn learns the majority classes first (group maj, or f where groups go by frequency), and the split "
            "has none. Make a split with a larger labelled part, or choose another method."
        )
    if options.pcb is not None:
        check_imagenet_file(Path(options.pcb))
    threshold = repeat_threshold(context, options.threshold)
    stages = component(
        TwoStageHook,
        start=context.iterations - max(1, round(options.fine_tuning * context.iterations)),
        minority=context.minority,
        minority_images=str(context.minority_images),
        threshold=threshold,
        shots=options.shots,
        roi_gradient=options.tuned_roi_gradient,
        dropout=options.dropout,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        pcb=options.pcb,
    )
    return MethodConfig(
        bbox_head={"cls_predictor_cfg": component(DropoutLinear)},
        detector={
            "rpn_head": component(DecoupledRPNHead, factor=options.rpn_gradient),
            "roi_head": component(DecoupledRoIHead, factor=options.roi_gradient),
        },
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=threshold,
        hooks=[stages],
    )
