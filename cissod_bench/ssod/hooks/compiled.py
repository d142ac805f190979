"""torch.compile of backbone and neck, which have the same few operators in every step.

Height and width of images are variables to the compiler, so that one piece of code serves all shapes. Fused arithmetic
rounds differently: results with and without do not stand in one table.
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
        config = torch._dynamo.config
        self._before = (config.recompile_limit, config.fail_on_recompile_limit_hit)
        config.recompile_limit, config.fail_on_recompile_limit_hit = VERSIONS, True
        compile_features(model_of(runner), self.backend)

    def after_run(self, runner: Any) -> None:
        """Put the compiler's limit back."""
        config = torch._dynamo.config
        config.recompile_limit, config.fail_on_recompile_limit_hit = self._before


def compile_features(model: Any, backend: str = "inductor") -> None:
    """Let backbone and neck of both detectors be compiled, for images of any height and width."""
    for detector in (model.student, model.teacher):
        unfold_frozen_norms(detector.backbone)  # the compiler folds them itself
        for part in (detector.backbone, detector.neck):
            part.compile(backend=backend, dynamic=True)
