"""make-splits that runs out of disk or is killed: the previous split intact, nothing left after the next run."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cissod_bench.splits.folder import load_split
from tests.privileges import without_privileges
from tests.toy import TOY_TASK, toy_data

PROGRAM = [sys.executable, "-m", "cissod_bench.cli.main"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data(images=2_000)))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    files = [
        "--task",
        str(folder / "toy.toml"),
        "--annotations",
        str(folder / "toy.json"),
        "--out",
        str(folder / "out"),
    ]
    return [*PROGRAM, "make-splits", "--no-plot", *files, *more]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder: Path) -> None:
    def limit() -> None:  # a file of more than 20 kB cannot be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = subprocess.run(arguments(folder), preexec_fn=limit, capture_output=True, text=True)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert names(folder) == {"toy.json", "toy.toml"}


@pytest.mark.parametrize(
    "command",
    [
        ("export", "out", "--out", "ids.txt"),
        ("export", "out", "--form", "yolo", "--out", "lists"),
        ("plot", "out", "--out", "plot.svg"),
        ("import", "--task", "toy.toml", "--annotations", "toy.json", "--ids", "out/ids/majority.txt", "--out", "back"),
    ],
)
def test_a_full_disk_while_something_else_is_written(folder: Path, command: tuple[str, ...]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    assert subprocess.run(arguments(folder), capture_output=True).returncode == 0
    result = subprocess.run(
        [*PROGRAM, "splits", *command], cwd=folder, preexec_fn=limit, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert names(folder) == {"toy.json", "toy.toml", "out"}


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("", 0o500, "out cannot be written: Permission denied"),
        ("toy.json", 0o000, "toy.json' is not readable"),
        ("toy.toml", 0o000, "toy.toml cannot be read: Permission denied"),
    ],
)
def test_no_permission(folder: Path, name: str, mode: int, message: str) -> None:
    before = (folder / name).stat().st_mode
    (folder / name).chmod(mode)
    result = subprocess.run(arguments(folder), preexec_fn=without_privileges, capture_output=True, text=True)
    (folder / name).chmod(before)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert names(folder) == {"toy.json", "toy.toml"}


def test_a_split_that_may_not_be_read(folder: Path) -> None:
    assert subprocess.run(arguments(folder), capture_output=True).returncode == 0
    (folder / "out" / "labeled.json").chmod(0)
    verify = [*PROGRAM, "splits", "verify", str(folder / "out")]
    result = subprocess.run(verify, preexec_fn=without_privileges, capture_output=True, text=True)
    assert result.returncode == 2
    assert "labeled.json cannot be read: Permission denied" in result.stderr


def test_killed_at_any_moment(folder: Path) -> None:
    assert subprocess.run(arguments(folder), capture_output=True).returncode == 0
    digest = load_split(folder / "out").digest
    started = time.perf_counter()
    subprocess.run(arguments(folder, "--seed", "7"), capture_output=True)  # refused: how long a run takes
    whole = time.perf_counter() - started
    for part in (0.55, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0):
        process = subprocess.Popen(arguments(folder, "--seed", "1", "--force"), stdout=subprocess.DEVNULL)
        time.sleep(part * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The old split or the new one, never something between; both are whole.
        assert load_split(folder / "out").seed in (0, 1)
    assert subprocess.run(arguments(folder, "--force"), capture_output=True).returncode == 0
    assert load_split(folder / "out").digest == digest
    assert names(folder) == {"toy.json", "toy.toml", "out"}
