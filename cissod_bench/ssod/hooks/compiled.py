"""torch.compile of backbone and neck, which have the same few operators in every step.

Images are padded to a multiple of 128 instead of 32 pixels, so that multi-scale training has dozens of shapes, not
hundreds; after the second one the compiler makes code for all. More padding changes features near the edge of an image
a little, and so does fused arithmetic: results with and without do not stand in one table.
"""

from typing import Any

import torch
from mmengine.hooks import Hook

from cissod_bench.errors import UserError
from cissod_bench.ssod.hooks.iteration import model_of

PADDING = 128
"""Sides of padded images are multiples of this."""


def check_compiler(device: str) -> None:
    """Compile a small function.

    Raises:
        UserError: that does not work here.
    """
    try:
        torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))
    except Exception as error:  # the compiler's own errors, those of a missing gcc, of triton, of the driver
        needed = "a C++ compiler (g++)" if device == "cpu" else "triton and a C compiler (gcc)"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--compile: torch.compile does not work here ({reason}). It needs {needed}; leave the option out to train "
            "without."
        ) from error


class CompileHook(Hook):
    """Compiles backbone and neck of student and teacher when training starts.

    Args:
        backend: torch.compile's.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def before_run(self, runner: Any) -> None:
        """Compile, which happens at the first call; names of weights stay as they are."""
        compile_features(model_of(runner), self.backend)


def compile_features(model: Any, backend: str = "inductor") -> None:
    """Let backbone and neck of both detectors be compiled."""
    for detector in (model.student, model.teacher):
        for part in (detector.backbone, detector.neck):
            part.compile(backend=backend)
