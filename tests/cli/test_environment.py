"""The program in odd environments: encodings, sizes of the terminal, ranks, and values in files that are none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cissod_bench.errors import UserError
from cissod_bench.launch.grid import read_grid
from cissod_bench.results.environment import git_state
from cissod_bench.results.record import write_result
from cissod_bench.tasks.task_file import TEMPLATE, read_task_file
from cissod_bench.training.process.distributed import place_in_group
from tests.leaderboard.runs import make_record

PROGRAM = [sys.executable, "-m", "cissod_bench.cli.main"]


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "0"},
        {"COLUMNS": "wide", "LINES": "-1"},
        {"COLUMNS": ""},
    ],
)
def test_tables_and_messages_in_any_encoding_and_width(tmp_path: Path, variables: dict[str, str]) -> None:
    write_result(tmp_path / "runs" / "a" / "result.json", make_record(method="gbs-ä-類"))
    (tmp_path / "runs" / "類").mkdir()
    (tmp_path / "runs" / "類" / "result.json").write_text("{")
    environment = {**os.environ, **variables}
    shown = subprocess.run([*PROGRAM, "report", str(tmp_path / "runs")], capture_output=True, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert b"gbs-" in shown.stdout
    assert b"result.json cannot be read" in b" ".join(shown.stderr.split())


@pytest.mark.parametrize("rank", [("x", "2"), ("-1", "2"), ("2", "2"), ("0", "none"), ("1.5", "2"), ("", "2")])
@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")])
def test_a_rank_that_is_none_is_one_sentence(names: tuple[str, str], rank: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="no place among processes"):
        place_in_group(dict(zip(names, rank, strict=True)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "version = -1", "version must be a whole number of at least 0, not -1"),
        ("version = 1", f"version = {2**64}", "version is a number of more than 64 bits"),
        ("version = 1", f"version = {'9' * 5_000}", "not a TOML file"),
        ("fraction = 0.1", "fraction = nan", "labeled.fraction must be a finite number, not nan"),
        ("fraction = 0.1", "fraction = inf", "labeled.fraction must be a finite number, not inf"),
        ("iterations = 10000", "iterations = -inf", "training.iterations must be a finite number"),
        ('"train.json"', '"train\\u0000.json"', "data.train_annotations has a NUL character"),
        ('"a rare class"', '"a\\u0000class"', r"groups.minority\[0\] has a NUL character"),
        ('name = "my-task"', f'name = "{"x" * 101}"', "at most 100"),
        ('name = "my-task"', 'name = "../x"', "use letters"),
    ],
)
def test_values_of_a_task_file_that_are_none(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEMPLATE
    (tmp_path / "task.toml").write_text(TEMPLATE.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_task_file(tmp_path / "task.toml")


@pytest.mark.parametrize(
    "text", ["out = 3\n", 'out = "a\\u0000b"\n', "[run]\nseed = nan\n", f"[run]\nseed = {2**70}\n", "\xff"]
)
def test_values_of_a_sweep_file_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"sweep\.toml"):
        read_grid(tmp_path / "sweep.toml", {})


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_packages_own_repository(tmp_path: Path) -> None:
    package = tmp_path / "venv" / "package"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / ".gitignore").write_text("venv\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "somebody else's")
    assert git_state(package) is None
    git(tmp_path, "add", "-f", "venv")
    git(tmp_path, "commit", "-qm", "ours")
    found = git_state(package)
    assert found is not None
    assert (found.commit, found.dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)


def test_the_state_of_the_repository_is_looked_up_without_its_lock(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    os.utime(tmp_path / "a.py", (1, 1))  # git would write down that the content is still the same
    before = (tmp_path / ".git" / "index").read_bytes()
    found = git_state(tmp_path)
    assert found is not None
    assert not found.dirty
    assert (tmp_path / ".git" / "index").read_bytes() == before


def test_json_needs_no_encoding(tmp_path: Path) -> None:
    write_result(tmp_path / "a" / "result.json", make_record(method="類"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*PROGRAM, "report", str(tmp_path), "--json"]
    shown = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert json.loads(shown.stdout)["rows"][0]["method"] == "類"
