"""Settings set otherwise: checked, shown, part of what a run is, and exported for mmdet alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from typer.testing import CliRunner

from cissod_bench.cli.create import template
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import load_result
from cissod_bench.results.run_key import comparison_key, replicate_key
from cissod_bench.training.build_config import build_config, export_config
from cissod_bench.training.config_diff import differences
from cissod_bench.training.overrides import apply_overrides, parse_overrides
from cissod_bench.training.preflight import check_parts
from cissod_bench.training.run_plan import plan, plan_lines
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


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
    # The overrides themselves, which are part of what the run is, and the settings. The batch of an evaluation decides
    # no result: a run that was begun with another default goes on.
    assert any(line.startswith("overrides.val_dataloader.batch_size is unset") for line in found), found
    named = [line.partition(" is ")[0] for line in found if not line.startswith("overrides")]
    assert named == sorted(overrides.keys() - {"val_dataloader.batch_size"})


def test_a_component_can_be_set_where_there_was_none() -> None:
    config = Config({"model": {"refinement": None, "type": "X"}})
    apply_overrides(config, {"model.refinement": {"type": "Y", "queue": 2}})
    assert config.to_dict() == {"model": {"refinement": {"type": "Y", "queue": 2}, "type": "X"}}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optim_wrapper.optimizer.lrr", 1, r"Did you mean .*optim_wrapper.optimizer.lr\b"),
        ("optimizer.lr", 1, r"Did you mean optim_wrapper.optimizer.lr\?"),
        ("param_scheduler.7.gamma", 1, r"Did you mean param_scheduler.1.gamma"),
        ("optim_wrapper.optimizer", 1, r"has settings of its own; set one of them: type, lr"),
        ("optim_wrapper.optimizer.lr", "high", r"str, but the setting is 0.001"),
        ("optim_wrapper.optimizer.lr", True, r"bool, but the setting is 0.001"),
        ("optim_wrapper.optimizer.lr", None, r"of type None, but the setting is 0.001"),
        ("optim_wrapper.optimizer.lr", float("inf"), "must be a finite number"),
        ("val_dataloader.batch_size", 1.5, r"of type float, but the setting is 20"),
        ("param_scheduler", [], r"has settings of its own; set one of them: 0, 1"),
        ("param_scheduler.1.milestones", ["a"], r"milestones=a: the value is of type str, but the setting is 3"),
        ("train_dataloader.dataset.datasets.1.pipeline.2.unsup_student.3.ratio.0", 1, r"set all values at once"),
        ("default_hooks.logger.interval", 0, "must be at least 1"),
        ("default_hooks.checkpoint.interval", 0, "must be at least 1"),
        ("custom_hooks.2.interval", 0, "must be at least 1"),
        ("train_cfg.val_interval", 0, "must be at least 1"),
        ("train_cfg.val_interval", -3, "must be at least 1"),
        ("val_dataloader.batch_size", 0, "must be at least 1"),
        ("log_level", "FOO", r"Unknown value 'FOO'. Did you mean 'INFO'\?"),
        ("optim_wrapper.precision", "fp64", "give --precision"),
        ("default_scope", "../../../x", r"cannot be set here. --set takes model.\*, optim_wrapper.\*"),
        ("train_dataloader.sampler.type", "Foo", "cannot be set here. --set takes"),
        ("custom_hooks.7.batch", 3, "the images in a step decide the learning rate"),
        ("model.detector.roi_head.bbox_head.num_classes", 3, "the task and the split decide it"),
        (
            "train_dataloader.batch_size",
            8,
            r"the images in a step decide the learning rate and the length; use --gpus",
        ),
        ("train_dataloader.sampler.batch_size", 12, r"the images in a step decide the learning rate"),
        (
            "train_dataloader.sampler.source_ratio",
            [8, 4],
            r"the images in a step decide the learning rate",
        ),
        ("randomness.seed", 3, "give --seed"),
        ("train_cfg.max_iters", 3, "give --iterations"),
        ("val_evaluator.max_detections", 3, "the protocol decides how runs are scored"),
        ("train_dataloader.dataset.datasets.0.ann_file", "x", "the task and the split decide it"),
        ("zzz", 3, "Unknown setting 'zzz'"),
    ],
)
def test_what_cannot_be_set_is_refused(name: str, value: Any, message: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run_job(tiny_job(tiny, tmp_path / "run", overrides={name: value}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("optim_wrapper.optimizer.lr", -1, "ValueError: Invalid learning rate: -1.0"),
        ("optim_wrapper.optimizer.type", "Foo", "KeyError: Foo is not in the optimizer registry"),
        ("param_scheduler.1.type", "CosineAnnealingLR", "TypeError: .*'milestones'"),
        ("model.type", "Foo", "KeyError: Foo is not in the mmdet::model registry"),
        ("model.detector.backbone.depth", 19, "KeyError: invalid depth 19 for resnet"),
        ("model.detector.neck.out_channels", 0, "RuntimeError: "),
        ("model.detector.rpn_head.in_channels", 64, r"RuntimeError: .*expected input.* to have 64 channels"),
        ("custom_hooks.2.type", "Foo", "KeyError: Foo is not in the mmdet::hook registry"),
    ],
)
def test_what_a_part_refuses_is_said_before_anything_is_written(
    name: str, value: Any, cause: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"--set {name}={value}.*: does not fit \({cause}"):
        run_job(tiny_job(tiny, tmp_path / "run", overrides={name: value}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("action", [["--plan", "--json"], ["--export-config", "x.py"], ["--processes", "2"]])
def test_settings_are_tried_whatever_is_asked_for(action: list[str], tiny: Path, tmp_path: Path) -> None:
    given = ["--task", tiny / "task.toml", "--split", tiny / "split", "--data-root", tiny, "--out", tmp_path / "run"]
    command = ["run", *map(str, given), "--method", "gbs", "--device", "cpu", "--iterations", "4", *action]
    if action[0] == "--export-config":
        command[-1] = str(tmp_path / "x.py")
    with pytest.raises(UserError, match=r"--set model.type=Foo: does not fit"):
        CliRunner().invoke(app, [*command, "--set", "model.type=Foo"], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_settings_that_fit_are_tried_without_a_word(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = {
        "model.semi_train_cfg.jitter_times": 3,
        "optim_wrapper.optimizer.lr": 0.1,
        "default_hooks.logger.interval": 2,
        "train_dataloader.sampler.labeled_repeat": None,
        "train_dataloader.dataset.datasets.0.pipeline.2.scale": [(96, 96), (128, 128)],
        "val_dataloader.batch_size": 3,
        "log_level": "DEBUG",
    }
    state = torch.get_rng_state()
    check_parts(tiny_job(tiny, tmp_path / "run", method="gbs", overrides=overrides))
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("milestones", [1], "/10 at 1"),
        ("milestones", [], "never lowered"),
        ("milestones", [1, 2, 3], "/10 at 1, 2 and 3"),
        ("gamma", 0.3, "times 0.3 at 3 and 4"),
    ],
)
def test_the_plan_says_when_the_rate_is_lowered(name: str, value: Any, said: str, tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", overrides={f"param_scheduler.1.{name}": value})
    assert f"  rate       0.001 for 6 images a step, {said}" in plan_lines(job)


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
    with pytest.raises(UserError, match=r"holds another run: overrides.* is .*, not "):
        run_job(tiny_job(tiny, tmp_path / "run", iterations=1))


def test_a_record_from_before_overrides_still_loads(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "run" / "result.json"
    result = run_job(tiny_job(tiny, file.parent, iterations=1))
    content = json.loads(file.read_text())
    del content["key"]["overrides"], content["damaged_images"]
    file.write_text(json.dumps(content))
    assert load_result(file) == result


def test_an_exported_configuration_is_run_by_mmdet_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as `run` gives, from nothing but mmengine's Runner on the file, in another directory."""
    shutil.copytree(tiny, tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    overrides = {"model.semi_train_cfg.jitter_times": 3}
    alone = tiny_job(Path("data"), Path("alone"), method="gbs", overrides=overrides, hidden=Path("data/train.json"))
    file = Path("gbs.py")
    export_config(alone, file)
    script = (
        "from mmengine.config import Config; from mmengine.runner import Runner; "
        "Runner.from_cfg(Config.fromfile('../gbs.py')).train()"
    )
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd="elsewhere", env=one_thread)
    run_job(tiny_job(tiny, tmp_path / "run", method="gbs", overrides=overrides))
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "iter_4.pth", weights_only=False)["state_dict"]
        for name in ("alone", "run")
    )
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert (tmp_path / "alone" / "detections.json").read_bytes() == (tmp_path / "run" / "detections.json").read_bytes()

    export_config(alone, file)
    file.write_text("mine = 1")
    with pytest.raises(UserError, match=r"gbs.py: exists with other content"):
        export_config(alone, file)
    for name in ("gbs", "gbs.json"):
        with pytest.raises(UserError, match=rf"--export-config {name}: .*NAME.py"):
            export_config(alone, Path(name))
        assert not Path(name).exists()


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_configuration_has_no_relative_path(
    method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    export_config(tiny_job(Path("data"), Path("run"), method=method), Path("x.py"))
    text = (tmp_path / "x.py").read_text()
    assert not re.findall(r"'(?:data|run)(?:/[^']*)?'", text)


def test_an_exported_configuration_of_a_users_method_names_its_file(tiny: Path, tmp_path: Path) -> None:
    """The copy is in the run folder, which is not there yet."""
    file = tmp_path / "mine.py"
    file.write_text(template("exported-method"))
    export_config(tiny_job(tiny, tmp_path / "run", method=str(file)), tmp_path / "x.py")
    assert f"'method_file': '{file}'" in (tmp_path / "x.py").read_text()
