"""Runs in one process: the same as in processes of their own, and nothing is left behind."""

import logging
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import cissod_bench as cb
from cissod_bench.ssod.hooks.checkpoints import checkpoints

METHODS = ("gbs", "crest")


def spec(tiny: Path, out: Path, method: str) -> cb.RunSpec:
    return cb.RunSpec(
        task=str(tiny / "task.toml"), method=method, split=tiny / "split", data_root=tiny, out=out, iterations=3,
        device="cpu", threads=1, loggers=(),
    )  # fmt: skip


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(checkpoints(out / "checkpoints")[0], weights_only=False)["state_dict"])


def global_state() -> dict[str, Any]:
    """What mmengine and torch keep for the whole process."""
    kinds = (MMLogger, MessageHub, DefaultScope, Visualizer, *Visualizer.__subclasses__())
    return {
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "instances": {kind.__name__: list(kind._instance_dict) for kind in kinds},
        "loggers": [logging.getLogger().level, list(logging.getLogger().handlers)],
        "threads": torch.get_num_threads(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "warnings": list(warnings.filters),
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[union-attr, unused-ignore]  # noqa: NPY002
    }


@pytest.fixture(scope="module")
def in_one_process(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two runs of this process."""
    folder = tmp_path_factory.mktemp("one")
    random.seed(5)
    torch.manual_seed(5)
    torch.set_num_threads(1)
    for method in METHODS:
        cb.run(spec(tiny, folder / method, method))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_in_one_process_are_two_runs_in_two(
    method: str, in_one_process: Path, tiny: Path, tmp_path: Path
) -> None:
    asked = f"""
import cissod_bench as cb
from cissod_bench.training.spec import decode_spec
cb.run(decode_spec({cb_json(spec(tiny, tmp_path / method, method))!r}))
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Training" not in done.stderr
    one, other = weights(in_one_process / method), weights(tmp_path / method)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (in_one_process / method / "detections.json").read_bytes() == (
        tmp_path / method / "detections.json"
    ).read_bytes()


def cb_json(asked: cb.RunSpec) -> bytes:
    from cissod_bench.training.spec import encode_spec

    return encode_spec(asked)


def test_nothing_is_printed_and_nothing_stays_changed(
    in_one_process: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = global_state()
    finished_spec = spec(tiny, tmp_path / "run", "rfs")
    finished = cb.run(finished_spec)
    cb.prepare(msgspec.structs.replace(finished_spec, overrides={"model.semi_train_cfg.jitter_times": 3}))
    cb.load_detector(finished).predict(next((tiny / "val").iterdir()))
    cb.evaluate(finished.detections, split=tiny / "split", task=str(tiny / "task.toml"), data_root=tiny)
    cb.load_results(tmp_path).to_frame()
    cb.compare(finished, finished, samples=10)
    after = global_state()
    assert {name: (value, after[name]) for name, value in before.items() if after[name] != value} == {}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda folder: cb.run(cb.RunSpec(task="shpes", method="gbs")), "Unknown task 'shpes'. Did you mean 'shapes'"),
        (lambda folder: cb.run(cb.RunSpec(task="shapes")), "needs either --method"),
        (lambda folder: cb.make_splits("shapes", folder, seeds=[0, 0]), "seeds must be different"),
        (lambda folder: cb.load_split(folder), "holds no split"),
        (lambda folder: cb.load_results(folder), r"No usable result.json"),
        (lambda folder: cb.report(folder), r"No usable result.json"),
        (lambda folder: cb.load_detector(folder), "no run folder"),
        (lambda folder: cb.compare(folder, folder), "result.json"),
        (lambda folder: cb.evaluate(folder / "x.json"), "Give --task"),
        (lambda folder: cb.sweep(folder / "grid.toml"), "There is no sweep file"),
        (lambda folder: cb.methods.describe("gbz"), "Unknown method 'gbz'"),
        (lambda folder: cb.tasks.describe("coc"), "Unknown task 'coc'"),
        (lambda folder: cb.detectors.describe("r51-fpn"), "Unknown detector 'r51-fpn'"),
    ],
)
def test_what_a_user_can_mend_is_a_user_error(call: Callable[[Path], Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(cb.UserError, match=error):
        call(tmp_path)


def test_importing_the_package_is_fast() -> None:
    code = """
import sys, time
started = time.perf_counter()
import cissod_bench
assert time.perf_counter() - started < 0.2
cissod_bench.RunSpec, cissod_bench.run, cissod_bench.methods, cissod_bench.tasks, cissod_bench.detectors
heavy = [name for name in ("torch", "mmdet", "mmengine", "pandas", "matplotlib", "cv2") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
