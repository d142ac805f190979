"""Settings set otherwise: checked, shown, part of what a run is, and exported for mmdet alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cissod_bench.engine.config import build_config, export_config
from cissod_bench.engine.identity import differences
from cissod_bench.engine.overrides import parse_overrides
from cissod_bench.engine.plan import plan, plan_lines
from cissod_bench.engine.run import run_job
from cissod_bench.errors import UserError
from cissod_bench.leaderboard.records import comparison_key, load_result, replicate_key
from tests.engine.conftest import tiny_job


def test_values_are_python_literals_or_text() -> None:
    given = ["a.b=0.02", "c=[1, 2]", "d=None", "e=cosine", "f=x=y"]
    assert parse_overrides(given) == {"a.b": 0.02, "c": [1, 2], "d": None, "e": "cosine", "f": "x=y"}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(UserError, match="--set"):
            parse_overrides(wrong)


def test_an_override_reaches_one_place_of_the_configuration(tiny: Path, tmp_path: Path) -> None:
    plain = build_config(tiny_job(tiny, tmp_path / "run"))
    overrides = {
        "optim_wrapper.optimizer.lr": 1,
        "param_scheduler.1.milestones": [2, 3],
        "val_dataloader.batch_size": 3,
        "model.detector.rpn_head.loss_bbox.loss_weight": 2.0,
    }
    changed = build_config(tiny_job(tiny, tmp_path / "run", overrides=overrides))
    assert isinstance(changed.optim_wrapper.optimizer.lr, float)
    assert changed.test_dataloader.batch_size == plain.test_dataloader.batch_size
    found = differences(plain.pretty_text, changed.pretty_text)
    # The overrides themselves, which are part of what the run is, and the four settings.
    assert [line.partition(":")[0] for line in found if not line.startswith("overrides")] == sorted(overrides)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optim_wrapper.optimizer.lrr", 1, r"Did you mean .*optim_wrapper.optimizer.lr\b"),
        ("optimizer.lr", 1, r"Did you mean optim_wrapper.optimizer.lr\?"),
        ("param_scheduler.7.gamma", 1, r"Did you mean param_scheduler.1.gamma"),
        ("optim_wrapper.optimizer", 1, r"has settings of its own; set one of them: type, lr"),
        ("optim_wrapper.optimizer.lr", "high", r"str, but the setting is 0.001"),
        ("optim_wrapper.optimizer.lr", True, r"bool, but the setting is 0.001"),
        ("train_dataloader.batch_size", 1.5, r"float, but the setting is 6"),
        ("randomness.seed", 3, "give --seed"),
        ("train_cfg.max_iters", 3, "give --iterations"),
        ("val_evaluator.max_detections", 3, "how runs are scored is part of the protocol"),
        ("train_dataloader.dataset.datasets.0.ann_file", "x", "the task and the split say it"),
        ("zzz", 3, "Unknown setting 'zzz'"),
    ],
)
def test_what_cannot_be_set_is_refused(name: str, value: Any, message: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run_job(tiny_job(tiny, tmp_path / "run", overrides={name: value}))
    assert not (tmp_path / "run").exists()


def test_overrides_are_shown_recorded_and_keep_runs_apart(tiny: Path, tmp_path: Path) -> None:
    overrides = {"optim_wrapper.optimizer.lr": 0.02}
    job = tiny_job(tiny, tmp_path / "run", iterations=1, overrides=overrides)
    assert plan(job)["learning_rate"] == 0.02
    assert "  set        optim_wrapper.optimizer.lr = 0.02" in plan_lines(job)
    key = run_job(job).key
    assert key.overrides == overrides
    plain = run_job(tiny_job(tiny, tmp_path / "plain", iterations=1)).key
    assert comparison_key(key) != comparison_key(plain)
    assert replicate_key(key) != replicate_key(plain)
    with pytest.raises(UserError, match=r"holds another run: overrides.* there, .* asked for"):
        run_job(tiny_job(tiny, tmp_path / "run", iterations=1))


def test_a_record_from_before_overrides_still_loads(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "run" / "result.json"
    result = run_job(tiny_job(tiny, file.parent, iterations=1))
    content = json.loads(file.read_text())
    del content["key"]["overrides"], content["damaged_images"]
    file.write_text(json.dumps(content))
    assert load_result(file) == result


def test_an_exported_configuration_is_run_by_mmdet_alone(tiny: Path, tmp_path: Path) -> None:
    """The same weights as `run` gives, from nothing but mmengine's Runner on the file."""
    alone = tiny_job(tiny, tmp_path / "alone", method="gbs", overrides={"model.semi_train_cfg.jitter_times": 3})
    file = tmp_path / "gbs.py"
    export_config(alone, file)
    script = (
        "from mmengine.config import Config; from mmengine.runner import Runner; "
        f"Runner.from_cfg(Config.fromfile({str(file)!r})).train()"
    )
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path, env=one_thread)
    run_job(tiny_job(tiny, tmp_path / "run", method="gbs", overrides=alone.overrides))
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "iter_4.pth", weights_only=False)["state_dict"]
        for name in ("alone", "run")
    )
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert (tmp_path / "alone" / "detections.json").read_bytes() == (tmp_path / "run" / "detections.json").read_bytes()

    export_config(alone, file)
    file.write_text("mine = 1")
    with pytest.raises(UserError, match=r"gbs.py: exists with another content"):
        export_config(alone, file)
