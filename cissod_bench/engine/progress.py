"""What a user sees while a run goes on: one bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10
"""Lines per phase where the output is no terminal."""


class _Phase:
    """One bar, or its lines."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._console, self._title, self._total = console, title, total
        self._done, self._first, self._started = done, done, time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, done: int, note: str = "") -> None:
        before, self._done = self._done, done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif done * LINES // self._total > before * LINES // self._total:
            seconds = (time.monotonic() - self._started) / (done - self._first) * (self._total - done)
            self._console.print(f"{self._title} {done}/{self._total}, {seconds / 60:.1f} min left  {note}".rstrip())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows training and evaluation on standard error, from the main process."""

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._train: _Phase | None = None
        self._inner: _Phase | None = None

    def before_train(self, runner: Any) -> None:
        """Open the training bar where the run stands."""
        if is_main_process():
            self._train = _Phase(self._console, "Training", runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the training bar; the loss is read back only when it is shown."""
        if self._train is not None:
            done = runner.iter + 1
            note = ""
            if done % max(1, runner.max_iters // 100) == 0:
                note = f"loss {float(outputs['loss'].detach()):.3f}"
            self._train.advance(done, note)

    def after_train(self, runner: Any) -> None:
        """Close the training bar."""
        if self._train is not None:
            self._train.close()
            self._train = None

    def before_val_epoch(self, runner: Any) -> None:
        """Open an evaluation bar."""
        self._open("Evaluating", len(runner.val_dataloader))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the evaluation bar."""
        self.after_sweep_batch(runner, batch_idx + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the evaluation bar and go on with training."""
        self.after_sweep(runner)

    def before_sweep(self, runner: Any, batches: int) -> None:
        """Open a bar for a sweep of the unlabelled images."""
        self._open("Labelling the unlabelled images", batches)

    def after_sweep_batch(self, runner: Any, done: int) -> None:
        """Move that bar."""
        if self._inner is not None:
            self._inner.advance(done)

    def after_sweep(self, runner: Any) -> None:
        """Close that bar and go on with training."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None
        if self._train is not None and runner.iter + 1 < runner.max_iters:
            self._train = _Phase(self._console, "Training", runner.max_iters, runner.iter + 1)

    def _open(self, title: str, total: int) -> None:
        """Open a bar in place of that of training: two at once would overwrite each other."""
        if is_main_process():
            if self._train is not None:
                self._train.close()
            self._inner = _Phase(self._console, title, total)
