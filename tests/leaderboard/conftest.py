"""Records and run folders for the tests of the leaderboard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.results.record import write_result
from tests.leaderboard.runs import make_record


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder with a record; gives the folder."""

    def write(name: str, ap: dict[str, float] | None = None, **key: Any) -> Path:
        folder = tmp_path / "runs" / name
        write_result(folder / "result.json", make_record(ap, **key))
        return folder

    return write
