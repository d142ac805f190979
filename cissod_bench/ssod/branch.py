"""Which branch of an iteration calls a classification loss.

Soft Teacher evaluates the RoI head several times per iteration. A loss that keeps state (gradient matrices, accumulated
ratios) or weighs labelled and pseudo-labelled samples differently must know the branch. Everything outside the two
training branches (the teacher, evaluation) is "off" and must not change the state.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

from torch import nn

Branch = Literal["sup", "unsup", "off"]


@contextlib.contextmanager
def branch(loss_cls: nn.Module, name: Branch) -> Iterator[None]:
    """Set `loss_cls.branch` within the block. It is set on every loss; losses without state ignore it."""
    before: Branch = getattr(loss_cls, "branch", "off")
    loss_cls.branch = name  # type: ignore[assignment]
    try:
        yield
    finally:
        loss_cls.branch = before  # type: ignore[assignment]
