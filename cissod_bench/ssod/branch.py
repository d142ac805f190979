"""Which pass of an iteration a classification loss is serving.

Soft Teacher evaluates the RoI head several times per iteration. A loss that keeps state (gradient matrices, accumulated
ratios) or weighs labelled and pseudo-labelled samples differently has to know which pass it is in; everything outside
the two training passes (the teacher, evaluation) is "off" and must leave the state alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

from torch import nn

Pass = Literal["sup", "unsup", "off"]


@contextlib.contextmanager
def serving(loss_cls: nn.Module, name: Pass) -> Iterator[None]:
    """Tell `loss_cls` that it serves the pass `name` for the length of the block.

    Losses without state ignore it: the attribute is set on every loss, so that a method never has to ask for it.
    """
    before: Pass = getattr(loss_cls, "serving", "off")
    loss_cls.serving = name  # type: ignore[assignment]
    try:
        yield
    finally:
        loss_cls.serving = before  # type: ignore[assignment]
