"""torch.compile for backbone and neck, which run the same few operators in every step.

Images are padded to multiples of 128 instead of 32 pixels, so that multi-scale training has dozens of shapes instead of
hundreds; after the second shape the compiler generates code for all. Both the padding and fused arithmetic change
features slightly, so runs with and without compilation are not comparable.
"""

from typing import Any

import torch
from mmengine.hooks import Hook

from cissod_bench.errors import UserError
from cissod_bench.ssod.hooks.iteration import model_of

PADDING = 128
"""Sides of padded images are multiples of this."""


def check_compiler(device: str) -> None:
    """Compile a small function as a test.

    Raises:
        UserError: compilation does not work here.
    """
    try:
        torch.compile(lambda x: (x + 1).relu())(torch.zeros(8, device=device))
    except Exception as error:  # from the compiler, a missing gcc, triton or the driver
        needed = "a C++ compiler (g++)" if device == "cpu" else "triton and a C compiler (gcc)"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--compile: torch.compile does not work here ({reason}). It needs {needed}. Install it, or "
            "leave --compile out."
        ) from error


class CompileHook(Hook):
    """Compiles backbone and neck of student and teacher when training starts.

    Args:
        backend: backend of torch.compile.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def before_run(self, runner: Any) -> None:
        """Mark both detectors for compilation at the first call; names of weights do not change."""
        compile_features(model_of(runner), self.backend)


def compile_features(model: Any, backend: str = "inductor") -> None:
    """Mark backbone and neck of both detectors for compilation."""
    for detector in (model.student, model.teacher):
        for part in (detector.backbone, detector.neck):
            part.compile(backend=backend)
