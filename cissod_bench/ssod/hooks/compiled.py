"""torch.compile for backbone and neck, which run the same few operators in every step.

Height and width of images are variables for the compiler, so that one version of the code works for all shapes. Fused
arithmetic rounds differently, so runs with and without compilation are not comparable.
"""

from typing import Any

import torch
from mmengine.hooks import Hook

from cissod_bench.errors import UserError
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.model.frozen_norm import unfold_frozen_norms

VERSIONS = 64
"""Pieces of code for one function, at most: two detectors, with and without gradients, in several layouts. PyTorch's
limit of 8 is just what they need."""


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
        config = torch._dynamo.config
        self._before = (config.recompile_limit, config.fail_on_recompile_limit_hit)
        config.recompile_limit, config.fail_on_recompile_limit_hit = VERSIONS, True
        compile_features(model_of(runner), self.backend)

    def after_run(self, runner: Any) -> None:
        """Restore the limit of the compiler."""
        config = torch._dynamo.config
        config.recompile_limit, config.fail_on_recompile_limit_hit = self._before


def compile_features(model: Any, backend: str = "inductor") -> None:
    """Mark backbone and neck of both detectors for compilation, for images of any height and width."""
    for detector in (model.student, model.teacher):
        unfold_frozen_norms(detector.backbone)  # the compiler folds them itself
        for part in (detector.backbone, detector.neck):
            part.compile(backend=backend, dynamic=True)
