"""Progress of a run: one bar on a terminal, ten lines per phase elsewhere; and its throughput."""

import datetime
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINES = 10
"""Lines per phase if the output is not a terminal."""
WINDOW = 100
"""Iterations to average over, few enough to follow a machine that gets busy or pseudo labels that begin."""
FORWARD = 1 / 3
"""Estimated cost of inference on an image relative to training on it: a backward pass costs two forward passes."""


class Remaining:
    """Time left in a run: iterations at the current pace, evaluations and inference passes like the last one.

    Args:
        evaluation: estimated length of an evaluation in iterations, used until the first one is measured.
        inference: the same for a teacher inference pass over D_u.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, evaluation: float, inference: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._estimates = (evaluation, inference)
        self._clock = clock
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None
        self._evaluation: float | None = None
        self._inference: float | None = None

    def start(self) -> None:
        """Iterations start, or continue after an interruption."""
        self._last = self._clock()

    def iterated(self) -> None:
        """An iteration ended."""
        now = self._clock()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now

    def evaluated(self, seconds: float) -> None:
        """An evaluation took this long."""
        self._evaluation = seconds

    def inferred(self, seconds: float) -> None:
        """An inference pass took this long, which does not count for the iteration around it."""
        self._inference = seconds
        if self._last is not None:
            self._last += seconds

    @property
    def pace(self) -> float | None:
        """Mean seconds per iteration; None before the first."""
        return sum(self._times) / len(self._times) if self._times else None

    def seconds(self, iterations: int, evaluations: int, inferences: int) -> float | None:
        """Seconds for this many more of each; None before the first iteration."""
        pace = self.pace
        if pace is None:
            return None
        evaluation, inference = (
            estimate * pace if seen is None else seen
            for estimate, seen in zip(self._estimates, (self._evaluation, self._inference), strict=True)
        )
        return iterations * pace + evaluations * evaluation + inferences * inference


class _Phase:
    """A progress bar, or lines instead of one."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._console, self._title, self.total, self._done = console, title, total, done
        self._note = ""
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(title, total=total, completed=done, left="", note="")
            self._bar.start()

    def shows(self, done: int) -> bool:
        """Whether to show progress at `done`: always on a bar, else ten times per phase."""
        return self._bar is not None or done * LINES // self.total > self._done * LINES // self.total

    def advance(self, done: int, seconds: float | None, note: str = "") -> None:
        left = "" if seconds is None else f"{datetime.timedelta(seconds=round(seconds))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, left=left, note=note or self._note)
            self._note = note or self._note
        elif self.shows(done):
            self._console.print(f"{self._title} {done}/{self.total}, {left}  {note}".rstrip())
        self._done = done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class ProgressHook(Hook):
    """Shows training and evaluation on standard error, from the main process."""

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._train: _Phase | None = None
        self._val: _Phase | None = None
        self._inference: _Phase | None = None

    def before_train(self, runner: Any) -> None:
        """Open the training bar at the current iteration."""
        if is_main_process():
            if runner.iter > 0:
                self._console.print(f"Resuming at iteration {runner.iter:,}.")
            self._train = _Phase(self._console, "Training", runner.max_iters, runner.iter)
            self._remaining = Remaining(*estimates(runner))
            self._remaining.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the training bar; the loss is read only when it is shown."""
        if self._train is not None:
            done = runner.iter + 1
            self._remaining.iterated()
            note = ""
            if done % max(1, runner.max_iters // 100) == 0:
                note = f"loss {float(outputs['loss'].detach()):.3f}"
            left = (runner.max_iters - done, evaluations_after(runner, done), passes_after(runner, done))
            self._train.advance(done, self._remaining.seconds(*left), note)

    def after_train(self, runner: Any) -> None:
        """Close the training bar."""
        if self._train is not None:
            self._train.close()
            self._train = None

    def before_inference(self, runner: Any, batches: int) -> None:
        """Open a bar for a teacher inference pass."""
        self._inference = self._open("Teacher inference", batches)

    def after_inference_batch(self, runner: Any, done: int, damaged: list[str]) -> None:
        """Advance it."""
        if self._inference is not None:
            self._advance(self._inference, done)

    def after_inference(self, runner: Any) -> None:
        """Close it and return to the training bar."""
        if self._inference is not None:
            self._inference.close()
            self._inference = None
            self._remaining.inferred(time.monotonic() - self._opened)
            self._show_training(runner)

    def before_val_epoch(self, runner: Any) -> None:
        """Open an evaluation bar."""
        self._val = self._open("Evaluating", len(runner.val_dataloader))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advance the evaluation bar."""
        if self._val is not None:
            self._advance(self._val, batch_idx + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the evaluation bar, show the AP of each group and return to the training bar."""
        if self._val is not None:
            self._val.close()
            self._val = None
            found = {name.removesuffix("/AP"): value for name, value in (metrics or {}).items() if name.endswith("/AP")}
            if found:
                values = ", ".join(f"{group} {100 * value:.1f}" for group, value in found.items())
                self._console.print(f"Iteration {runner.iter:,}: AP {values} (percent)", highlight=False)
            if self._train is not None:
                self._remaining.evaluated(time.monotonic() - self._opened)
                self._remaining.start()
        self._show_training(runner)

    def close(self) -> None:
        """Close the bars of a run that ends early, however it ends; an open bar hides the cursor of the terminal."""
        for phase in (self._train, self._val, self._inference):
            if phase is not None:
                phase.close()

    def _open(self, title: str, total: int) -> _Phase | None:
        """A bar instead of the training bar, since two would overwrite each other; None on other ranks."""
        if not is_main_process():
            return None
        if self._train is not None:
            self._train.close()
        self._opened = time.monotonic()
        return _Phase(self._console, title, total)

    def _advance(self, phase: _Phase, done: int) -> None:
        phase.advance(done, (time.monotonic() - self._opened) / done * (phase.total - done))

    def _show_training(self, runner: Any) -> None:
        if self._train is not None and runner.iter < runner.max_iters:
            self._train = _Phase(self._console, "Training", runner.max_iters, runner.iter)


class ThroughputHook(Hook):
    """Logs `images_per_second` of all ranks, and `memory_mib`, the peak memory of the GPU, or else of the process.

    The time is that of the iterations with their data and checkpoints, without evaluations.

    Args:
        interval: iterations between two lines of the log.
        batch: images in a step of all ranks.
    """

    priority = "NORMAL"  # before the logger

    def __init__(self, interval: int, batch: int) -> None:
        self.interval, self.batch = interval, batch
        self._seconds, self._steps = 0.0, 0
        self._peak = 0.0

    def before_train(self, runner: Any) -> None:
        """Begin to count."""
        self._last = time.monotonic()
        runner.peak_memory_mib = lambda: max(self._peak, peak_memory())

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count; log where a line is due."""
        now = time.monotonic()
        self._seconds, self._steps, self._last = self._seconds + now - self._last, self._steps + 1, now
        if (runner.iter + 1) % self.interval == 0:
            runner.message_hub.update_scalar("train/images_per_second", self._steps * self.batch / self._seconds)
            self._peak = max(self._peak, peak_memory())  # mmengine's logger begins anew with each line
            runner.message_hub.update_scalar("train/memory_mib", self._peak)
            self._seconds, self._steps = 0.0, 0

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Leave the evaluation out."""
        self._last = time.monotonic()


def peak_memory() -> float:
    """MiB: peak of the GPU's tensors where there is a GPU, else of the process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def evaluations_after(runner: Any, done: int) -> int:
    """Evaluations of a run that are still to come after `done` iterations, that at `done` included."""
    interval, last = runner.val_interval, runner.max_iters
    begun = (done - 1) // interval
    return last // interval - begun + (last % interval > 0)


def passes_after(runner: Any, done: int) -> int:
    """Teacher inference passes left after `done` iterations, as reported by `passes_after` of the hooks."""
    return sum(hook.passes_after(runner, done) for hook in runner.hooks if hasattr(hook, "passes_after"))


def estimates(runner: Any) -> tuple[float, float]:
    """Lengths of an evaluation and of an inference pass in iterations, by the number of their images."""
    validation = 0 if runner.val_loop is None else len(runner.val_dataloader.dataset)
    unlabeled = sum(map(len, runner.train_dataloader.dataset.datasets[1:]))
    step = runner.train_dataloader.batch_size * get_world_size()
    return FORWARD * validation / step, FORWARD * unlabeled / step
