"""Every reader against some mutated inputs; by hand against thousands, `python benchmarks/attack.py --count 20000`."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attack.py"
READERS = 14


def test_no_reader_fails_on_mutated_inputs() -> None:
    command = [sys.executable, str(SCRIPT), "--count", "150", "--first", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    rows = re.findall(r"^(\w+): 150 inputs, (\d+) refused, 0 faults", shown.stdout, flags=re.MULTILINE)
    assert len(rows) == READERS
    for name, refused in rows:
        assert 15 < int(refused) <= 150, f"{name}: changes that do nothing test nothing"
