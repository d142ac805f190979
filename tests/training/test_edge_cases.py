"""Data at the edge of what a task may be, for every method: one class, a class nobody labelled, no pseudo label."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cissod_bench.methods.registry import METHODS
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.runner import run_job
from tests.tiny import TASK_FILE, final_state, tiny_job

Change = Callable[[dict[str, Any]], None]


def one_class(annotations: dict[str, Any]) -> None:
    """All boxes are of the first class, and it is the only one."""
    annotations["categories"] = annotations["categories"][:1]
    for box in annotations["annotations"]:
        box["category_id"] = annotations["categories"][0]["id"]


def a_class_without_boxes(annotations: dict[str, Any]) -> None:
    """The last class has no box in any image."""
    last = annotations["categories"][-1]["id"]
    annotations["annotations"] = [box for box in annotations["annotations"] if box["category_id"] != last]


def changed(tiny: Path, folder: Path, change: Change, groups: str) -> Path:
    """A copy of the tiny data with other annotations and groups, and its split."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("split"))
    for name in ("train.json", "val.json"):
        annotations = json.loads((folder / name).read_text())
        change(annotations)
        (folder / name).write_text(json.dumps(annotations))
    (folder / "task.toml").write_text(TASK_FILE.replace("minority = {minority}", groups))
    make_splits(get_task(str(folder / "task.toml")), folder / "train.json", [(folder / "split", Variant(seed=0))])
    return folder


@pytest.fixture(scope="module")
def missing_class(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in which a class has no box."""
    groups = 'minority = ["dotted ball", "hollow triangle"]'
    return changed(tiny, tmp_path_factory.mktemp("missing") / "data", a_class_without_boxes, groups)


@pytest.fixture(scope="module")
def single_class(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of one class."""
    return changed(tiny, tmp_path_factory.mktemp("single") / "data", one_class, "frequency = [1, 2]")


def assert_finite(run: Path) -> None:
    for name, value in final_state(run, 2).items():
        assert not value.is_floating_point() or torch.isfinite(value).all(), name


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_nobody_labelled(method: str, missing_class: Path, tmp_path: Path) -> None:
    result = run_job(tiny_job(missing_class, tmp_path / "run", method=method, iterations=2))
    assert (result.groups["min"].classes, result.groups["min"].without_ground_truth) == (2, 1)
    assert_finite(tmp_path / "run")


@pytest.mark.parametrize("method", METHODS)
def test_a_task_of_one_class(method: str, single_class: Path, tmp_path: Path) -> None:
    result = run_job(tiny_job(single_class, tmp_path / "run", method=method, iterations=2))
    assert {name: group.classes for name, group in result.groups.items() if group.classes} == {"all": 1, "f": 1}
    assert_finite(tmp_path / "run")
