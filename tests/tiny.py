"""A tiny data set with its split, runs on it, and what tests do with such runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.ssod.hooks.progress import ProgressHook
from cissod_bench.synthetic.shapes import generate
from cissod_bench.tasks.registry import TASKS, get_task
from cissod_bench.training.job import Job, resolve_job
from cissod_bench.training.runner import run_job
from cissod_bench.training.spec import RunSpec

TASK_FILE = """
name = "tiny"
title = "a few images of the shapes data set"
version = 1
[data]
train_annotations = "train.json"
train_images = "train"
val_annotations = "val.json"
val_images = "val"
[groups]
minority = {minority}
[labeled]
fraction = 0.3
floor = 2
[training]
detector = "r18-small"
iterations = 40
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `task.toml`, its data (40 training, 6 validation images) and `split/`. Not to be written into."""
    folder = tmp_path_factory.mktemp("tiny") / "data"
    generate("shapes", folder, 0, train_images=40, val_images=6)
    (folder / "task.toml").write_text(TASK_FILE.format(minority=list(TASKS["shapes"].minority)))
    task = get_task(str(folder / "task.toml"))
    make_splits(task, folder / "train.json", [(folder / "split", Variant(seed=0))])
    return folder


def tiny_job(tiny: Path, out: Path, **changes: Any) -> Job:
    """A job of four iterations on the tiny task."""
    fields: dict[str, Any] = {
        "task": str(tiny / "task.toml"),
        "method": "soft-teacher",
        "split": tiny / "split",
        "out": out,
        "data_root": tiny,
        "schedule": "short",
        "iterations": 4,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
    }
    return resolve_job(RunSpec(**(fields | changes)))


class Killed(Exception):
    """The end of a process that had no time to say so."""


def interrupted(job: Job, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run a job that dies after so many iterations, the checkpoint of the last one written."""
    original = ProgressHook.after_train_iter

    def die(self: ProgressHook, runner: Any, *args: Any, **kwargs: Any) -> None:
        original(self, runner, *args, **kwargs)
        if (job.out / "checkpoints" / f"iter_{after}.pth").exists():
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ProgressHook, "after_train_iter", die)
        with pytest.raises(Killed):
            run_job(job)
    assert not (job.out / "result.json").exists()


def final_state(out: Path, iteration: int) -> dict[str, torch.Tensor]:
    state = torch.load(out / "checkpoints" / f"iter_{iteration}.pth", weights_only=False)["state_dict"]
    return dict(state)
