"""What a run's errors are drawn and named as; the errors themselves are tested in `tests/evaluation/test_tide.py`."""

from pathlib import Path

import pytest

from cissod_bench.evaluation.tide import ERROR_TYPES
from cissod_bench.leaderboard.errors import RunErrors, write_plots


def test_plots_are_named_after_the_run_from_inside_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gbs-0").mkdir()
    monkeypatch.chdir(tmp_path / "gbs-0")
    counts = {"all": dict.fromkeys(ERROR_TYPES, 1)}
    confusion = {"maj": {"correct": 1, "within": 0, "min": 0, "background": 1}}
    confusion["min"] = {"correct": 1, "within": 0, "maj": 2, "background": 1}
    write_plots(RunErrors(Path(), counts, dict.fromkeys(ERROR_TYPES, 0.1), confusion, 0.3), tmp_path / "out")
    kinds = ("pdf", "png", "svg")
    expected = {f"gbs-0-{what}.{kind}" for what in ("errors", "confusion") for kind in kinds}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
