"""Checkpoints that are written whole or not at all, and finding the newest usable one."""

import os
import re
import signal
import zipfile
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook

from cissod_bench.errors import Stopped, UserError
from cissod_bench.io import atomic_path
from cissod_bench.ssod.checkpoint_reading import load_checkpoint, not_admitted
from cissod_bench.ssod.stopping import noted_signal, stop_signal

_NAME = re.compile(r"iter_(\d+)\.pth")
_FOLDER = 0x10
"""The attribute by which a zip archive's directory marks a folder."""


class AtomicCheckpointHook(Hook):
    """Writes `iter_N.pth` at an interval, before each evaluation, at the end, and when the run is told to stop.

    A checkpoint is flushed to disk under another name and then renamed; older ones are removed only after that. Before
    it is written, `before_checkpoint` of every hook is called on all ranks, so that hooks can gather their state or
    refuse to save a bad one.

    Args:
        interval: iterations between two checkpoints.
        folder: folder for the checkpoints.
        keep: number of newest checkpoints to keep.
        accumulate: iterations that make a step of the optimiser. Gradients that wait for a step are in no checkpoint,
            so a run stops between two steps.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int, folder: str, keep: int = 2, accumulate: int = 1) -> None:
        self.interval, self.folder, self.keep, self.accumulate = interval, Path(folder), keep, accumulate

    def before_train(self, runner: Any) -> None:
        """Remove leftovers of a process that died while writing."""
        if is_main_process():
            for leftover in self.folder.glob(".iter_*"):
                leftover.unlink()

    def before_train_epoch(self, runner: Any) -> None:
        """Evaluate first when a resumed run starts where an evaluation is due.

        Whether the evaluation had been finished does not matter: the log is cut back to the checkpoint (`logs.py`), and
        the same weights give the same result.
        """
        if runner.iter > 0 and runner.train_loop.evaluates(runner.iter):
            runner.val_loop.run()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write a checkpoint if one is due; stop if the run was told to."""
        done = runner.iter + 1
        between_steps = done % self.accumulate == 0
        stop = stop_signal(runner, done) if done < runner.max_iters and between_steps else None
        if stop or done % self.interval == 0 or runner.train_loop.evaluates(done):
            runner.call_hook("before_checkpoint")
            if is_main_process():
                self._write(runner, done)
            barrier()
        if stop:
            self._stop(stop, done)

    def after_train(self, runner: Any) -> None:
        """Remove what a process left that died between writing the last checkpoint and removing the oldest."""
        if is_main_process():
            self._remove_old()

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop during an evaluation; its checkpoint exists, and the resumed run repeats the evaluation."""
        stop = noted_signal(runner)
        if stop is not None:
            self._stop(stop, runner.iter)

    def after_inference_batch(self, runner: Any, done: int, damaged: list[str]) -> None:
        """Stop during a teacher inference pass, which can take longer than the sender of the signal waits.

        The pass is part of an iteration, so there is nothing to write: the run resumes from the last checkpoint.
        """
        stop = noted_signal(runner)
        if stop is not None:
            kept = checkpoints(self.folder)
            raise Stopped(
                f"Stopped by {signal.Signals(stop).name} during a teacher inference pass after iteration "
                f"{runner.iter + 1}. Run the same command again to resume "
                + (f"from {kept[0]}." if kept else "from the beginning, since there is no checkpoint yet."),
                stop,
            )

    def _write(self, runner: Any, done: int) -> None:
        try:
            with atomic_path(self.folder / f"iter_{done}.pth") as temporary:
                runner.save_checkpoint(str(self.folder), temporary.name, by_epoch=False)
                if found := not_admitted(temporary):
                    raise UserError(
                        f"The checkpoint of iteration {done} would hold {', '.join(found)}, which is not read back. "
                        "Keep tensors, NumPy arrays, numbers and text in `before_save_checkpoint`."
                    )
            _sync(self.folder)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError
            kept = checkpoints(self.folder)
            raise UserError(
                f"{self.folder}: the checkpoint of iteration {done} could not be written ({error}). "
                + (f"{kept[0].name} is intact; " if kept else "")
                + "free some disk space, then run the same command again to resume."
            ) from error
        self._remove_old()

    def _remove_old(self) -> None:
        for old in checkpoints(self.folder)[self.keep :]:
            old.unlink()

    def _stop(self, number: int, done: int) -> None:
        raise Stopped(
            f"Stopped by {signal.Signals(number).name} at iteration {done}; the checkpoint is "
            f"{self.folder / f'iter_{done}.pth'}. Run the same command again to resume from there.",
            number,
        )


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("iter_*.pth") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_readable(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest usable checkpoint, and the newer ones that are damaged.

    Raises:
        UserError: there are checkpoints, but none is usable.
    """
    damaged: list[Path] = []
    for path in checkpoints(folder):
        if is_whole(path):
            return path, damaged
        damaged.append(path)
    if damaged:
        raise UserError(f"{folder}: none of the {len(damaged)} checkpoints can be read. Remove the run folder.")
    return None, []


def is_whole(path: Path) -> bool:
    """Whether a checkpoint matches the checksums that PyTorch wrote into it, and can be opened.

    The weights are read once, for the checksums; opening maps them into memory. A wrong bit can raise anything:
    UnicodeDecodeError in a name, RuntimeError in a flag, EOFError in a size, zlib.error, ...
    """
    if not path.is_file():  # a pipe or a device, on which reading would wait
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            # The attributes have no checksum. PyTorch skips an entry marked as a folder and leaves its tensor
            # uninitialised.
            if archive.testzip() is not None or any(entry.external_attr & _FOLDER for entry in archive.infolist()):
                return False
        load_checkpoint(path)
    except Exception:
        return False
    return True


def read_config(path: Path) -> str:
    """Text of the configuration stored in a checkpoint.

    Raises:
        UserError: not a checkpoint of this program.
    """
    try:
        content = load_checkpoint(path)
        return str(content["meta"]["cfg"])
    except Exception as error:  # pickle and torch raise various types
        raise UserError(f"{path}: not a checkpoint of this program ({type(error).__name__}).") from error


def _sync(folder: Path) -> None:
    """Flush a folder's entries, so that a crash cannot undo the rename once older checkpoints are gone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
