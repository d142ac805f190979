"""make-splits that runs out of disk or is killed: the previous split intact, nothing left after the next run."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_make import toy_data

from cissod_bench.splits.manifest import load_split

TASK = """
name = "toy"
[data]
train_annotations = "toy.json"
train_images = "."
validation_fraction = 0.1
[groups]
minority = ["rare", "scarce"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data(images=2_000)))
    (tmp_path / "toy.toml").write_text(TASK)
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "cissod_bench.cli.main", "make-splits", "--no-plot"]
    files = [
        "--task",
        str(folder / "toy.toml"),
        "--annotations",
        str(folder / "toy.json"),
        "--out",
        str(folder / "out"),
    ]
    return [*program, *files, *more]


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder: Path) -> None:
    folder.chmod(0o500)
    result = subprocess.run(arguments(folder), capture_output=True, text=True)
    folder.chmod(0o700)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr


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
