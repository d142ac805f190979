"""Hooks around each training iteration: teacher updates, loss checks, run time, sampler state."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from cissod_bench.errors import UserError
from cissod_bench.io import write_json

BAD_BATCH = "bad_batch.json"


class TeacherStudentHook(Hook):
    """Tells the model its iteration, and updates the teacher after it.

    `teacher <- (1 - momentum) * teacher + momentum * student` over all parameters at once. Buffers are copied when
    training starts and never again, as in mmdet's `MeanTeacherHook`, so normalisation must be frozen or have no running
    statistics.

    Args:
        momentum: part of the student in each update (Soft Teacher: 0.001).
        accumulate: iterations that make a step of the optimiser, after which the teacher is updated.
    """

    def __init__(self, momentum: float, accumulate: int = 1) -> None:
        self.momentum, self.accumulate = momentum, accumulate

    def before_train(self, runner: Any) -> None:
        """Start the teacher as a copy of the student."""
        if runner.iter == 0:
            model = model_of(runner)
            model.teacher.load_state_dict(model.student.state_dict())

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the number of the iteration."""
        model_of(runner).iteration = runner.iter

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Update the teacher, if the student has changed."""
        if (runner.iter + 1) % self.accumulate:
            return
        model = model_of(runner)
        torch._foreach_lerp_(list(model.teacher.parameters()), list(model.student.parameters()), self.momentum)


class FiniteLossHook(Hook):
    """Stops a run whose loss is not finite or has exploded, and saves the names of the images in the batch.

    Losses stay on the device until they are checked, at an interval and before each checkpoint. So no step waits for
    them, and no checkpoint follows a bad loss.

    Args:
        interval: iterations between two checks.
        out_dir: folder for `bad_batch.json`.
        limit: total loss that counts as exploded. Losses at the start of training are below 100, and a run does
            not recover from a hundred times that.
    """

    def __init__(self, interval: int, out_dir: str, limit: float = 1e4) -> None:
        self.interval, self.file, self.limit = interval, Path(out_dir) / BAD_BATCH, limit
        self._waiting: list[tuple[int, dict[str, torch.Tensor], list[dict[str, Any]]]] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the losses and the names of the images; check them if it is time."""
        losses = {name: value.detach() for name, value in outputs.items() if "loss" in name}
        self._waiting.append((runner.iter + 1, losses, images_of(data_batch)))
        if (runner.iter + 1) % self.interval == 0:
            self.before_checkpoint(runner)

    def before_checkpoint(self, runner: Any) -> None:
        """Check the losses since the last check.

        Raises:
            UserError: a loss is not finite or too large. The message names the first such iteration and its file.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        totals = torch.stack([losses["loss"] for _, losses, _ in waiting]).cpu()
        bad = torch.nonzero(~(totals.abs() < self.limit))
        if len(bad) == 0:
            return
        iteration, losses, images = waiting[int(bad[0])]
        values = {name: float(value) for name, value in losses.items()}
        finite = all(math.isfinite(value) for value in values.values())
        worst = {name: value for name, value in values.items() if finite or not math.isfinite(value)}
        # JSON has neither NaN nor infinity.
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        rank = get_rank()
        file = self.file.with_stem(f"{self.file.stem}-rank-{rank}") if rank else self.file
        write_json(file, {"iteration": iteration, "rank": rank, "losses": shown, "images": images})
        raise UserError(
            f"The loss {'has exploded' if finite else 'is not finite'} at iteration {iteration}: "
            f"{', '.join(f'{name} = {value:g}' for name, value in worst.items())}. The images of that batch are in "
            f"{file}. Try a lower learning rate. Earlier checkpoints are kept in the run folder."
        )


def images_of(data_batch: Any) -> list[dict[str, Any]]:
    """The images of a batch from the loader: `branch`, `id` and `path` of each view, in order."""
    return [
        {"branch": branch, "id": sample.img_id, "path": sample.img_path}
        for branch, samples in data_batch["data_samples"].items()
        for sample in samples
        if sample is not None
    ]


class StopwatchHook(Hook):
    """Counts the seconds of a run across interruptions, in `runner.seconds_trained`."""

    def __init__(self) -> None:
        self._before = 0.0

    def before_run(self, runner: Any) -> None:
        """Start the stopwatch."""
        self._started = time.monotonic()
        runner.seconds_trained = lambda: self._before + time.monotonic() - self._started

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the time so far."""
        checkpoint["seconds"] = runner.seconds_trained()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Continue from the saved time."""
        self._before = checkpoint.get("seconds", 0.0)


class SamplerStateHook(Hook):
    """Keeps the repeat factors of images, which methods change during training, in checkpoints."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the factors that are still needed."""
        checkpoint["sampler"] = runner.train_dataloader.sampler.state(runner.iter + 1)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the factors."""
        if runner._resume:
            runner.train_dataloader.sampler.restore(checkpoint["sampler"])


def model_of(runner: Any) -> Any:
    """The `TeacherStudent` of a run, without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def wrap_again(runner: Any) -> None:
    """Renew the wrapper of distributed training after the set of trainable parameters changed.

    The old wrapper would wait for the gradients of the old set, and its buckets have the old memory layout: PyTorch
    2.15 then writes the gradients of the first step to wrong addresses.
    """
    if is_model_wrapper(runner.model):
        runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), runner.model.module)
