"""LabelMatch's thresholds by rank (Chen et al., CVPR 2022) on Soft Teacher with RFS.

The paper's Table 5 takes the thresholds alone from LabelMatch and sets them into gbs (there `threshold=labelmatch`); so
does this method into Soft Teacher. The formula, and what is our reading of it: `methods/rank_threshold.py`.
"""

import msgspec

from cissod_bench.methods.base import Context, MethodConfig, repeat_threshold
from cissod_bench.methods.option_types import Count, NotNegative, UnitInterval
from cissod_bench.methods.rank_threshold import rank_threshold


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the rank-based thresholds."""

    fraction: UnitInterval = 0.2
    """Part of the expected boxes that are to count as pseudo labels (LabelMatch: 0.2)."""
    window: Count = 12_800
    """Number K of most recent unlabelled images whose scores are ranked (LabelMatch's online variant)."""
    warmup: UnitInterval = 12_000 / 180_000
    """Part of the run whose detections are only collected, unless the window is full before."""
    interval: Count = 100
    """Iterations between two updates of the thresholds (ours: often enough for so long a window)."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier until then; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Soft Teacher with RFS and one threshold by rank for each class."""
    return MethodConfig(
        threshold=rank_threshold(
            context,
            options.theta,
            options.warmup,
            fraction=options.fraction,
            window=options.window,
            interval=options.interval,
        ),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )
