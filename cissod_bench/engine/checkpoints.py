"""Checkpoints that are whole or absent, and finding the newest one that can be read."""

import re
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook

from cissod_bench.errors import UserError
from cissod_bench.files import atomic_path

_NAME = re.compile(r"iter_(\d+)\.pth")


@HOOKS.register_module()
class AtomicCheckpointHook(Hook):
    """Writes `iter_N.pth` at an interval and at the end; the checkpoint before is removed only after that.

    Args:
        interval: iterations between two checkpoints.
        folder: where they go.
        keep: newest checkpoints that stay.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int, folder: str, keep: int = 2) -> None:
        self.interval, self.folder, self.keep = interval, Path(folder), keep

    def due(self, runner: Any) -> bool:
        """Whether a checkpoint is written after the current iteration."""
        done: int = runner.iter + 1
        return done % self.interval == 0 or done == runner.max_iters

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write a checkpoint where one is due."""
        done = runner.iter + 1
        if not self.due(runner):
            return
        if is_main_process():
            with atomic_path(self.folder / f"iter_{done}.pth") as temporary:
                runner.save_checkpoint(str(self.folder), temporary.name, by_epoch=False)
            for old in checkpoints(self.folder)[self.keep :]:
                old.unlink()
        barrier()


def checkpoint_due(runner: Any) -> bool:
    """Whether the run writes a checkpoint after the current iteration: what a hook saves must be ready on all ranks."""
    return any(hook.due(runner) for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook))


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("iter_*.pth") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_readable(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint that can be read, and the damaged ones that are newer.

    Raises:
        UserError: there are checkpoints and none can be read.
    """
    damaged = []
    for path in checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=False, mmap=True)
        except Exception:  # zipfile, pickle and torch each have their own
            damaged.append(path)
        else:
            return path, damaged
    if damaged:
        raise UserError(f"{folder}: none of its {len(damaged)} checkpoints can be read. Remove the run folder.")
    return None, []
