"""Logs that survive interruptions of a run without gaps or duplicates.

All scalars of a run go into one file, however often it is resumed. A checkpoint records the length of each log file; a
run that resumes from it truncates the files to that length, so the log equals that of an uninterrupted run.
"""

import json
import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.visualization import BaseVisBackend, TensorboardVisBackend

from cissod_bench.results.curves import SCALARS
from cissod_bench.ssod.hooks.diagnostics import OBSERVABLES


class ScalarLog(BaseVisBackend):
    """Appends scalars to `scalars.jsonl`, one JSON object per line, with the number of completed iterations as `step`.

    Args:
        save_dir: the run folder.
    """

    def _init_env(self) -> None:
        Path(self._save_dir).mkdir(parents=True, exist_ok=True)

    @property
    def experiment(self) -> "ScalarLog":
        """This backend itself; mmengine requires the property."""
        return self

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **_: Any) -> None:
        """Append one line."""
        line = {"step": step, **{name: _plain(value) for name, value in scalar_dict.items()}}
        with (Path(self._save_dir) / SCALARS).open("a") as file:
            file.write(json.dumps(line) + "\n")


class TensorboardLog(TensorboardVisBackend):
    """mmengine's TensorBoard backend, which drops the steps that a resumed run repeats.

    Args:
        save_dir: folder of the event files.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self.first_step = 0

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(self._save_dir, purge_step=self.first_step)

    def add_config(self, config: Any, **_: Any) -> None:
        """Write no configuration: it is in the run folder, and would open the file before the first step is known."""


class ResumableLogsHook(Hook):
    """Saves the lengths of the log files in each checkpoint, and truncates the files on resume.

    Args:
        out_dir: the run folder.
    """

    priority = "VERY_HIGH"

    def __init__(self, out_dir: str) -> None:
        self.files = [Path(out_dir) / name for name in (SCALARS, OBSERVABLES)]
        self._lengths = dict.fromkeys((file.name for file in self.files), 0)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Flush the logs to disk and save their lengths."""
        lengths = {}
        for file in self.files:
            with file.open("ab") as log:
                os.fsync(log.fileno())
                lengths[file.name] = log.tell()
        checkpoint["log_lengths"] = lengths

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Truncate the logs to the lengths in the checkpoint."""
        if runner._resume:
            self._cut(checkpoint["log_lengths"])
            for backend in runner.visualizer._vis_backends.values():
                if isinstance(backend, TensorboardLog):
                    backend.first_step = checkpoint["meta"]["iter"] + 1

    def before_run(self, runner: Any) -> None:
        """Empty the logs of a run that was killed before its first checkpoint."""
        if not runner._resume:
            self._cut({})

    def _cut(self, lengths: dict[str, int]) -> None:
        if is_main_process():
            for file in self.files:
                if file.exists():
                    os.truncate(file, lengths.get(file.name, 0))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
