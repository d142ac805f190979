"""As many runs of a sweep at once as the device carries, until the time is over; a later call goes on with them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SECONDS_TO_STOP = 20
"""What runs need to write a checkpoint after SIGTERM."""


def run(report: Any, device: str) -> None:
    """Start, or go on with, the sweep in $GPU_SWEEP, $GPU_JOBS runs at a time; then their states, rates and AP."""
    sweep, jobs = os.environ["GPU_SWEEP"], os.environ.get("GPU_JOBS", "8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "cissod_bench.cli.main", "sweep", sweep]
    command = [*program, "--jobs", jobs, "--device", device, "--workers", "2", "--logger", "none"]
    process = subprocess.Popen(command, env=environment)
    try:
        process.wait(timeout=max(5.0, report.seconds_left() - SECONDS_TO_STOP))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
    report.add("exit status", process.returncode)
    states = subprocess.run([*program, "--device", device, "--status", "--json"], env=environment, capture_output=True)
    for row in json.loads(states.stdout or "[]"):
        out = Path(row["out"])
        report.add(row["run"], {"state": row["state"], "reason": row.get("reason"), **progress(out)})


def progress(out: Path) -> dict[str, Any]:
    """Iterations so far, seconds of the last ones and of waiting for images in them, and the last AP."""
    file = out / "scalars.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    steps = [line for line in lines if "time" in line]
    scores = [line for line in lines if "all/AP" in line]
    found: dict[str, Any] = {}
    if steps:
        found |= {name: steps[-1].get(name) for name in ("step", "time", "data_time")}
        found["hours"] = (time.time() - out.stat().st_ctime) / 3600
    if scores:
        found |= {name: value for name, value in scores[-1].items() if name.endswith("/AP")}
    return found
