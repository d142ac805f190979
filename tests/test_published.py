"""What an installed package brings along."""

import subprocess
import sys
from pathlib import Path

import pytest

import cissod_bench
from cissod_bench.errors import UserError
from cissod_bench.results.published import published_folder

ROOT = Path(__file__).parents[1]


def test_a_wheel_has_the_published_runs_without_their_detections(tmp_path: Path) -> None:
    command = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=ROOT, check=True, capture_output=True)
    built = tmp_path / "lib" / "cissod_bench" / "published"
    files = {path.relative_to(built): path.read_bytes() for path in built.rglob("*") if path.is_file()}
    results = ROOT / "results"
    assert files == {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*")
        if path.is_file() and path.name != "detections.json.xz"
    }
    assert Path("index.json") in files


def test_published_runs_are_those_of_the_wheel_else_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published_folder() == ROOT / "results"
    monkeypatch.setattr(cissod_bench, "__file__", str(tmp_path / "cissod_bench" / "__init__.py"))
    with pytest.raises(UserError, match="No published results came with this installation"):
        published_folder()
    for folder in (tmp_path / "results", tmp_path / "cissod_bench" / "published"):
        folder.mkdir(parents=True)
        (folder / "index.json").touch()
        assert published_folder() == folder
