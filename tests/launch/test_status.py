"""What is asked for against what run folders hold; training is left out, its records and configurations are real."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from cissod_bench.cli.create import template
from cissod_bench.cli.main import app
from cissod_bench.cli.sweep import read
from cissod_bench.errors import UserError
from cissod_bench.io import write_text
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.status import Member, Note, RunState, state_of, write_note
from cissod_bench.launch.sweep import grid_members
from cissod_bench.results.record import write_result
from cissod_bench.results.run_key import RunKey, facts_of
from cissod_bench.training import runner
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job, resolve_job
from cissod_bench.training.spec import run_key
from tests.leaderboard.runs import make_record

LR = "optim_wrapper.optimizer.lr"


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `run` write configuration and record of its job without training; no sweep starts anything."""

    trained: Any = SimpleNamespace(seconds_trained=lambda: 0.0, damaged_images=dict)

    def finish(job: Job, **_: Any) -> Any:
        record = runner.record(job, trained)
        write_text(job.folder.config, build_config(job).pretty_text)
        write_result(job.folder.record, record)
        return record

    def fail(*arguments: Any) -> Any:
        raise AssertionError("a run was started")

    monkeypatch.setattr(runner, "load_evaluation", lambda file: None)
    monkeypatch.setattr(runner, "run_costs", lambda *_: None)
    monkeypatch.setattr(runner, "make_result", lambda key, *_, **__: msgspec.structs.replace(make_record(), key=key))
    monkeypatch.setattr("cissod_bench.launch.here.run_job", finish)
    monkeypatch.setattr("cissod_bench.launch.here.launch", lambda spec, *_, **__: finish(resolve_job(spec)))
    monkeypatch.setattr("cissod_bench.training.job.backbone_prefix", lambda *_: None)
    monkeypatch.setattr("cissod_bench.training.preflight.check_backbone", lambda *_: None)
    monkeypatch.setattr("cissod_bench.launch.side_by_side.command_of", fail)


@pytest.fixture
def shared(tiny: Path) -> list[str]:
    """Options that all runs share."""
    given = {"--split": tiny / "split", "--data-root": tiny, "--device": "cpu", "--threads": 1, "--logger": "none"}
    return [str(word) for pair in given.items() for word in pair]


def one_run(tiny: Path, root: Path, *arguments: str) -> Member:
    grid = read(list(arguments), {"task": [str(tiny / "task.toml")]})
    (member,) = grid_members(grid.runs, root)
    return member


def in_the_folder_of(member: Member, other: Member) -> Member:
    """A run that is asked to be made in the folder of another."""
    return dataclasses.replace(other, name=member.name, spec=msgspec.structs.replace(other.spec, out=member.out))


def make(member: Member) -> None:
    done = CliRunner().invoke(app, ["run", *run_arguments(member.spec)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def interrupt(member: Member) -> None:
    """As if the run had stopped at its first checkpoint."""
    member.folder.record.unlink()
    (member.out / "checkpoints").mkdir()
    (member.out / "checkpoints" / "iter_1.pth").touch()


@pytest.mark.parametrize(
    "options",
    [
        "--method rfs",
        "--method rfs -o theta=0.8 --seed 3 --iterations 5 --precision bf16 --evaluator pycocotools "
        "--backbone FOLDER/w.pth",
        "--ablation gbr -o crs=true -o gamma=0.5 --schedule short",
        "--method gbs --preset release --detector r18-medium --schedule smoke",
        "--method soft-teacher --gpus 2 --schedule short",
        f"--method FOLDER/own.py --set {LR}=0.5 --set model.semi_train_cfg.min_pseudo_bbox_wh=(0.02,0.02)",
    ],
)
def test_what_is_asked_for_is_what_is_recorded(tiny: Path, tmp_path: Path, shared: list[str], options: str) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    (tmp_path / "own.py").write_text(template("own"))
    member = one_run(tiny, tmp_path / "runs", *options.replace("FOLDER", str(tmp_path)).split(), *shared)
    make(member)
    asked = run_key(member.spec)
    assert member.folder.result().key == msgspec.convert(msgspec.to_builtins(asked), RunKey)
    assert member.folder.held() == facts_of(asked)
    assert state_of(member) == RunState("done")

    interrupt(member)
    assert member.folder.held() == facts_of(asked), "by its configuration"
    assert state_of(member) == RunState("waiting"), "it continues"


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (f"--set {LR}=0.5", f"overrides.{LR} is unset, not 0.5"),
        ("--set foo.bar=1", "overrides.foo.bar is unset, not 1"),
        ("--detector r18-medium", "detector is 'r18-small', not 'r18-medium'"),
        ("--gpus 2", "batch is [4, 2], not [8, 4]"),
        ("--backbone FOLDER/w.pth", "backbone is None, not '9a129038d9a0...'"),
        ("--precision bf16", "precision is 'tf32', not 'bf16'"),
        ("--evaluator pycocotools", "evaluator is 'hotcoco', not 'pycocotools'"),
    ],
)
def test_a_folder_that_holds_another_run_says_so(
    tiny: Path, tmp_path: Path, shared: list[str], options: str, difference: str
) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    given = ("--method", "rfs", "--iterations", "3", *shared)
    made = one_run(tiny, tmp_path, *given)
    make(made)
    other = one_run(tiny, tmp_path, *given, *options.replace("FOLDER", str(tmp_path)).split())
    assert other.out == made.out or "--set" in options or "--detector" in options, "these are in the folder's name"
    other = in_the_folder_of(made, other)
    state = state_of(other)
    assert (state.state, state.reason) == ("another run", f"holds another run: {difference}")
    interrupt(made)
    assert state_of(other).state == "another run"


def test_what_cannot_be_compared_is_no_run_that_is_done(tiny: Path, tmp_path: Path, shared: list[str]) -> None:
    given = ("--method", "rfs", "--iterations", "3", *shared)
    made = one_run(tiny, tmp_path, *given)
    make(made)
    unknown = msgspec.structs.replace(made.spec, detector="r18-smal")
    state = state_of(dataclasses.replace(made, spec=unknown))
    assert state.state == "failed"
    assert "Did you mean 'r18-small'?" in state.reason
    interrupt(made)
    for text in ("run = {", "run = later()", "walk = {}"):
        (made.out / "config.py").write_text(text)
        assert state_of(made).state == "failed"
        assert f"{made.folder.config}: not the configuration of a run" in state_of(made).reason


def test_a_job_for_another_run_is_not_this_one(
    tiny: Path, tmp_path: Path, shared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--method", "rfs", "--iterations", "3", *shared)
    this = one_run(tiny, tmp_path, *given)
    other = in_the_folder_of(this, one_run(tiny, tmp_path, *given, "--set", f"{LR}=0.5"))
    write_note(this, Note(cluster="slurm", job="7", facts=facts_of(run_key(this.spec))))
    monkeypatch.setattr("cissod_bench.launch.status.job_state", lambda *_: ("queued", "job 7"))
    assert state_of(this) == RunState("queued", "job 7")
    assert state_of(other).state == "another run"
    assert state_of(other).reason.startswith(f"is taken by job 7 for another run: overrides.{LR} is unset, not 0.5")


@pytest.fixture
def asked(tiny: Path, tmp_path: Path, shared: list[str]) -> Callable[..., Any]:
    """Ask a sweep for a run that is done, with further options."""
    given = ["--method", "rfs", "--iterations", "3", *shared]
    make(one_run(tiny, tmp_path / "runs", *given))
    task = str(tiny / "task.toml")

    def sweep(*options: str) -> Any:
        return CliRunner().invoke(app, ["sweep", "--task", task, "--out", str(tmp_path / "runs"), *given, *options])

    return sweep


def test_a_sweep_starts_nothing_where_a_folder_holds_another_run(asked: Callable[..., Any]) -> None:
    assert asked().exit_code == 0
    for options in ([], ["--status"], ["--dry-run"]):
        outcome = asked("--precision", "bf16", *options)
        assert isinstance(outcome.exception, UserError), options
        assert str(outcome.exception).startswith("1 of 1 run folders hold another run, see the table")
        assert "another run" in outcome.stdout
        assert "precision is 'tf32', not 'bf16'" in " ".join(outcome.stdout.split())


def test_a_sweep_refuses_settings_before_it_starts_anything(asked: Callable[..., Any]) -> None:
    for options in ([], ["--seed", "1", "--seed", "2"]):
        outcome = asked("--set", "optim_wrapper.optimizr.lr=1", *options)
        assert isinstance(outcome.exception, UserError)
        assert f"no such setting. Did you mean {LR}" in str(outcome.exception)


def test_a_run_is_not_submitted_into_the_folder_of_another(tiny: Path, tmp_path: Path, shared: list[str]) -> None:
    made = one_run(tiny, tmp_path, "--method", "rfs", "--iterations", "3", *shared)
    make(made)
    arguments = [*run_arguments(made.spec), "--iterations", "4", "--slurm"]
    arguments += ["--slurm-option", "cluster=local", "--slurm-option", "time=5"]
    outcome = CliRunner().invoke(app, ["run", *arguments])
    assert isinstance(outcome.exception, UserError)
    assert str(outcome.exception) == f"{made.out} holds another run: iterations is 3, not 4. Give another --out."
    assert not made.note.exists()
