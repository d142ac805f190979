"""Everything that only a GPU can answer, in one command that loses nothing when it is cut off.

    python benchmarks/gpu.py --out gpu-report --budget 480
    python benchmarks/gpu.py --out gpu-report --budget 200 --only speed stream

Each part is a process of its own with a limit, and writes every figure into `report.json` as soon as it has it; the
file is always whole. What a part prints is in `PART.log`. On a CPU everything runs in small, as a rehearsal.

    env        versions; rates of products, convolutions and copies; microseconds of a launch and of a wait
    correct    every method on the device against the CPU; mixed precision; waits by place; DDP
    resume     a run that is stopped and resumed against two that ran through
    gbs        what gbs adds to a step at 80, 365 and 1,203 classes
    speed      stock mmdet `SoftTeacher` and the framework at each precision, and where the time goes
    stream     steps on a stream of image shapes, padded to 32, 64 and 128 pixels
    methods    a step of every method against Soft Teacher's
    detection  milliseconds an image by the number of images in a batch
    loader     whether reading and augmenting images keeps up, and real runs
    share      how many small runs one device carries
    train      the sweep in the file $GPU_SWEEP, $GPU_JOBS runs at a time; only where it is asked for
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PARTS = {"env": 30, "correct": 110, "resume": 120, "gbs": 30, "speed": 95, "stream": 80, "methods": 80,
         "detection": 30, "loader": 65, "share": 60, "train": 3600}  # fmt: skip
"""Seconds that each part may take."""


class Report:
    """The figures so far, in a file that is whole at every moment.

    Args:
        file: `report.json`; what is in it stays.
        part: whose figures are added.
        deadline: seconds of the monotonic clock at which the part has to be over.
    """

    def __init__(self, file: Path, part: str, deadline: float) -> None:
        self.file, self.part, self.deadline = file, part, deadline

    def add(self, name: str, value: Any) -> None:
        """Write one figure, or a table of them."""
        content = json.loads(self.file.read_text()) if self.file.exists() else {}
        content.setdefault(self.part, {})[name] = value
        staged = self.file.with_suffix(".staged")
        staged.write_text(json.dumps(content, indent=1))
        staged.replace(self.file)
        print(f"[{self.part}] {name}: {json.dumps(value)[:400]}", flush=True)

    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()


def run_part(part: str, out: Path, device: str, seconds: float) -> int:
    """Run one part as a process; its exit status, 124 where it ran out of time."""
    command = [sys.executable, __file__, "--out", out, "--part", part, "--device", device, "--budget", str(seconds)]
    with (out / f"{part}.log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait(timeout=seconds + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 124


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for report.json and logs")
    parser.add_argument("--budget", type=float, default=480, help="seconds in all")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), help="these parts alone")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: a GPU where there is one")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        report = Report(options.out / "report.json", options.part, time.monotonic() + options.budget)
        sys.path.insert(0, str(Path(__file__).parents[1]))  # tests and the package, where it is not installed
        import torch

        torch.set_num_threads(1 if options.device == "cuda" else 2)  # a host that only launches needs one
        importlib.import_module(f"gpu_parts.{options.part}").run(report, options.device)
        return
    device = options.device
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.monotonic()
    for part in options.only or [name for name in PARTS if name != "train"]:
        left = options.budget - (time.monotonic() - started)
        if left < 10:
            print(f"{part}: no time left")
            continue
        before = time.monotonic()
        limit = PARTS[part] * (1 if device == "cuda" else 5)
        status = run_part(part, options.out, device, min(limit, left - 5))
        said = {0: "done", 124: "out of time"}.get(status, f"failed, see {part}.log")
        print(f"{part}: {said}, {time.monotonic() - before:.0f} s", flush=True)
        if status not in (0, 124):
            print("".join((options.out / f"{part}.log").read_text().splitlines(keepends=True)[-15:]), flush=True)


if __name__ == "__main__":
    main()
