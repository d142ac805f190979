"""What made tables lie in version 0.1, by commands alone."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "seven_ways.py"


@pytest.mark.slow
def test_none_of_the_seven_ways_makes_a_table_lie(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--folder", str(tmp_path / "ways")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": does not lie\n") == 7
