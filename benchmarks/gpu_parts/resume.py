"""A run that is stopped by SIGTERM and resumed against two that ran through."""

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch


def run(report: Any, device: str) -> None:
    """Differences of the final weights."""
    runs = Runs(report.file.parent / "runs", device)
    report.add("weights", runs.compare(report.seconds_left() - 3))


class Runs:
    """Three runs of the program on the embedded data, one of them stopped by SIGTERM and gone on with."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        program = [sys.executable, "-m", "cissod_bench.cli.main"]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        task = ["--task", "shapes"]
        subprocess.run([*program, "make-splits", *task, "--out", folder / "split", "--no-plot"], check=True,
                       env=self.environment, stdout=subprocess.DEVNULL)  # fmt: skip
        length = "80" if device == "cuda" else "4"
        options = {"--split": folder / "split", "--device": device, "--iterations": length, "--workers": 1,
                   "--evaluations": 1, "--logger": "none"}  # fmt: skip
        given = [str(part) for option in options.items() for part in option]
        burn_in = ["--set", "model.semi_train_cfg.burn_in=0"]
        self.command = [*program, "run", *task, "--method", "gbs", *given, *burn_in]
        self.processes = {name: self._start(name) for name in ("one", "other", "stopped")}
        self.stopped_at: int | None = None

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        return subprocess.Popen([*self.command, "--out", str(self.folder / name)], env=self.environment, stdout=log,
                                stderr=subprocess.STDOUT)  # fmt: skip

    def compare(self, seconds: float) -> dict[str, Any]:
        """Differences of the final weights: between two that ran through, and to the one that was stopped."""
        end = time.monotonic() + seconds
        found: dict[str, Any] = {}
        scalars = self.folder / "stopped" / "scalars.jsonl"
        while time.monotonic() < end and self.processes["stopped"].poll() is None:
            if scalars.exists() and scalars.stat().st_size > 0:
                self.processes["stopped"].send_signal(signal.SIGTERM)
                break
            time.sleep(0.2)
        for name in ("stopped", "one", "other"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                found[f"exit status of {name}"] = self.processes[name].wait(timeout=max(1.0, end - time.monotonic()))
        again = self._start("stopped")
        with contextlib.suppress(subprocess.TimeoutExpired):
            found["exit status of the resumed"] = again.wait(timeout=max(1.0, end - time.monotonic()))
        for process in (*self.processes.values(), again):
            process.kill()
        last = {name: max((self.folder / name / "checkpoints").glob("iter_*.pth"), default=None,
                          key=lambda path: int(path.stem.split("_")[1]))
                for name in self.processes}  # fmt: skip
        found["checkpoints"] = {name: path and path.name for name, path in last.items()}
        if len({path and path.name for path in last.values()}) == 1 and last["one"]:
            states = {name: torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
                      for name, path in last.items() if path}  # fmt: skip
            for name in ("other", "stopped"):
                found[f"weights, one against {name}"] = max(
                    float((value.double() - states[name][key].double()).abs().max()) if value.numel() else 0.0
                    for key, value in states["one"].items()
                )
        for name in self.processes:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
            found[f"end of {name}.log"] = [line for line in lines if line.strip()][-3:]
        return copy.deepcopy(found)
