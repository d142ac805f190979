"""The same split under other conditions: `benchmarks/same_bytes.py` on made-up data, and that it can fail."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

from tests.toy import TOY_TASK, toy_data

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_bytes.py"
TASK = f"{TOY_TASK}[labeled]\nstratify = true\n"


def test_other_conditions_give_the_same_bytes(tmp_path: Path) -> None:
    content = toy_data(images=400)
    content["images"][3]["file_name"] = "grün/é.jpg"
    (tmp_path / "toy.json").write_text(json.dumps(content))
    (tmp_path / "toy.toml").write_text(TASK)
    program = [sys.executable, str(SCRIPT), "--annotations", str(tmp_path / "toy.json")]
    result = subprocess.run([*program, "--task", str(tmp_path / "toy.toml")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("same bytes") == 9
    assert "9 cases, 9 files each, 0 differ" in result.stdout


def test_every_difference_is_found() -> None:
    differences = runpy.run_path(str(SCRIPT))["differences"]
    assert differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"2"}) == []
    assert differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b""}) == ["b", "c"]
