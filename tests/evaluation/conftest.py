"""Shared data and JSON files for the tests of evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Path of a shared data file; the test is skipped where the data is absent."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"shared data absent: {name}")
        return DATA / name

    return find


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a value as a JSON file below the test's folder."""

    def to_file(name: str, value: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(value))
        return path

    return to_file
