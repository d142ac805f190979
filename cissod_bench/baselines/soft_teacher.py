"""Soft Teacher (Xu et al., ICCV 2021): the framework as it is; row 1 of the paper's Tables 1-3.

A teacher, the moving average of the student, labels weakly augmented images; the student learns from labels above a
fixed threshold on strongly augmented ones, and background samples count as much as the teacher believes in background.
"""

import msgspec

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold
from cissod_bench.methods.option_types import UnitInterval


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of Soft Teacher."""

    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Cross entropy, uniform sampling, one threshold."""
    return MethodConfig(threshold=fixed_threshold(context, options.theta))
