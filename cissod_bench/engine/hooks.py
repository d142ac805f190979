"""What the training loop does around each iteration of the frame."""

import time
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from cissod_bench.errors import UserError


@HOOKS.register_module()
class TeacherStudentHook(Hook):
    """Tells the frame its iteration, and moves the teacher towards the student after each one.

    `teacher <- (1 - momentum) * teacher + momentum * student` over all parameters at once. Buffers are copied when
    training starts and left alone afterwards, as by mmdet's `MeanTeacherHook`, so normalisation has to be frozen or
    without running statistics.

    Args:
        momentum: part of the student in each update (Soft Teacher: 0.001).
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def before_train(self, runner: Any) -> None:
        """Start the teacher as a copy of the student."""
        if runner.iter == 0:
            frame = frame_of(runner)
            frame.teacher.load_state_dict(frame.student.state_dict())

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the frame which iteration comes."""
        frame_of(runner).iteration = runner.iter

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the teacher."""
        frame = frame_of(runner)
        torch._foreach_lerp_(list(frame.teacher.parameters()), list(frame.student.parameters()), self.momentum)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a run whose loss is no longer a number, before a checkpoint of it is written.

    Args:
        interval: iterations between two looks, since each waits for the device.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the loss."""
        done = runner.iter + 1
        if done % self.interval and done != runner.max_iters:
            return
        bad = {name: float(value.detach()) for name, value in outputs.items() if _is_bad(name, value)}
        if bad:
            raise UserError(
                f"The loss is no longer finite at iteration {done}: "
                f"{', '.join(f'{name} = {value}' for name, value in bad.items())}. A lower learning rate may help; "
                "the checkpoints before stay in the run folder."
            )


def _is_bad(name: str, value: torch.Tensor) -> bool:
    return "loss" in name and not bool(torch.isfinite(value.detach()))


@HOOKS.register_module()
class StopwatchHook(Hook):
    """Keeps the seconds that a run has taken in all, over its interruptions, in `runner.seconds_trained`."""

    def __init__(self) -> None:
        self._before = 0.0

    def before_run(self, runner: Any) -> None:
        """Start."""
        self._started = time.monotonic()
        runner.seconds_trained = lambda: self._before + time.monotonic() - self._started

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Note the time so far."""
        checkpoint["seconds"] = runner.seconds_trained()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        self._before = checkpoint.get("seconds", 0.0)


@HOOKS.register_module()
class SamplerStateHook(Hook):
    """Keeps the repeat factors of images, which methods change as training goes on, in checkpoints."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save those that may be needed from here on."""
        checkpoint["sampler"] = runner.train_dataloader.sampler.state(runner.iter + 1)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        if runner._resume:
            runner.train_dataloader.sampler.restore(checkpoint["sampler"])


def frame_of(runner: Any) -> Any:
    """The teacher-student frame of a run, out of the wrapper that distributed training puts around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
