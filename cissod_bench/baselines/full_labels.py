"""Supervised training on all training labels: a reference for what the hidden labels are worth, never ranked.

It is `supervised` on D_l and D_u with every label of the training annotations, including those that the protocol hides
in images of D_m. The run writes them into its folder (`training/full_labels.py`); no other method gets to see them.
"""

import msgspec

from cissod_bench.methods.base import Context, MethodConfig


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The reference has no options."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Soft Teacher without pseudo labels, on labels of all training images."""
    return MethodConfig(unlabeled=False, all_labels=True)
