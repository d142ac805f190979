"""Which branch of an iteration calls a classification loss.

Soft Teacher evaluates the RoI head several times per iteration. A loss that keeps state (gradient matrices, accumulated
ratios) or weighs labelled and pseudo-labelled samples differently has to know the branch. Everything outside of the two
training branches (the teacher, evaluation) is "off" and must leave the state alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

from torch import nn

Branch = Literal["sup", "unsup", "off"]


@contextlib.contextmanager
def branch(loss_cls: nn.Module, name: Branch) -> Iterator[None]:
    """Set `loss_cls.branch` for the length of the block.

    It is set on every loss, so a method does not have to ask for it; losses without state ignore it.
    """
    before: Branch = getattr(loss_cls, "branch", "off")
    loss_cls.branch = name  # type: ignore[assignment]
    try:
        yield
    finally:
        loss_cls.branch = before  # type: ignore[assignment]
