"""The notebook-like script, with few images and iterations."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "notebook.py"


def test_the_notebook_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "2"])
    runpy.run_path(str(SCRIPT))
    printed = capsys.readouterr().out
    assert "unlabelled images" in printed
    assert "gamma: NotNegative = 1.0" in printed
    assert printed.count("soft-teacher") == 3, "one row a group"
    assert "all " in printed
    assert (workplace / "report" / "index.html").is_file()


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 40
