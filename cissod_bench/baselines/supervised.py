"""Supervised training on D_l alone: the row from which every gain by unlabelled images is counted.

All else is Soft Teacher's: detector, augmentation of labelled images, labelled images in a step, schedule, learning
rate, and evaluation of the teacher, here the moving average of a student that never sees a pseudo label. Labelled
images are sampled uniformly. No unlabelled image is opened.
"""

import msgspec

from cissod_bench.methods.base import Context, MethodConfig


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Supervised training has no options."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Soft Teacher without D_u."""
    return MethodConfig(unlabeled=False)
