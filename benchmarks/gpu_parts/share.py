"""How many small runs one device carries: iterations a second of `shapes`, alone and side by side."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run(report: Any, device: str) -> None:
    """Iterations a second of one, four and twelve runs at once."""
    folder = report.file.parent / "share"
    program = [sys.executable, "-m", "cissod_bench.cli.main"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    split = folder / "split"
    subprocess.run([*program, "make-splits", "--task", "shapes", "--out", split, "--no-plot"], check=True,
                   env=environment)  # fmt: skip
    for count in (1, 4, 12) if device == "cuda" else (1,):
        seconds = min(22.0 if device == "cuda" else 60.0, report.seconds_left() - 4)
        if seconds < 14:
            return
        outs = [folder / f"{count}-{index}" for index in range(count)]
        command = [*program, "run", "--task", "shapes", "--method", "gbs", "--split", split, "--device", device,
                   "--iterations", "6000" if device == "cuda" else "3", "--workers", "1"]  # fmt: skip
        processes = [
            subprocess.Popen([*command, "--seed", str(index), "--out", out], env=environment,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for index, out in enumerate(outs)
        ]  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            time.sleep(0.2)
        for process in processes:
            process.kill()
            process.wait()
        report.add(f"{count} at once", {"iterations_a_second": [rate(out) for out in outs]})


def rate(out: Path) -> float | None:
    """Iterations a second of the last logged interval; None where nothing was logged."""
    file = out / "scalars.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    times = [line["time"] for line in lines if "time" in line]
    return 1 / times[-1] if times else None
