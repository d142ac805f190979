"""The script for a GPU, rehearsed on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_every_figure_is_in_the_report_at_once_and_a_late_part_is_stopped(tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / "report.json").write_text(json.dumps({"speed": {"kept": 1}}))
    command = [sys.executable, SCRIPT, "--out", out, "--budget", "120", "--only", "env", "--device", "cpu"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stderr
    assert "env: done" in run.stdout
    report = json.loads((out / "report.json").read_text())
    assert report["speed"] == {"kept": 1}, "an earlier call's figures stay"
    assert report["env"]["versions"]["torch"]
    assert report["env"]["product fp32 TFLOP/s"] > 0
    assert "[env] launch us" in (out / "env.log").read_text()

    command[5], command[7] = "12", "correct"
    late = subprocess.run(command, capture_output=True, text=True)
    assert "correct: out of time" in late.stdout
    assert json.loads((out / "report.json").read_text())["env"] == report["env"]
