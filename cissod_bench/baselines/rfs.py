"""Repeat factor sampling (Gupta et al., CVPR 2019) of the labelled images, on Soft Teacher; row 2 of Tables 1-3.

Unlabelled images are sampled uniformly. Factors are rounded up, as in mmdet and the authors' release. The paper gives
no threshold for this baseline; the task's is the release's value for labelled images (0.1 COCO, 0.02 Objects365, 0.01
LVIS).
"""

import msgspec

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import NotNegative, UnitInterval


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of repeat factor sampling."""

    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Soft Teacher with repeated labelled images."""
    return MethodConfig(
        threshold=fixed_threshold(context, options.theta),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )
