"""Where an installed package finds the published runs."""

from pathlib import Path

import pytest

import cissod_bench
from cissod_bench.errors import UserError
from cissod_bench.results.published import published_folder

ROOT = Path(__file__).parents[1]


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
