"""Does a change leave every result as it was? Trains each method for 60 iterations and compares.

    python benchmarks/same_results.py                                          # with the values stored in tests/
    python benchmarks/same_results.py --only gbs --write tests/same_results.json   # new values, of some runs or all
    python benchmarks/same_results.py --tree ../old --write old.json           # the values of another checkout ...
    python benchmarks/same_results.py --stored old.json                        # ... to compare this one with

Each run trains `shapes` with 240 training and 40 validation images on one CPU thread, through the command line. In 60
iterations no detection is confident, so the thresholds are set low enough for thousands of pseudo labels; a run with
too few of them is an error, since it would show nothing (`supervised` and `full-labels` have none).

* On the machine that stored the values (processor, Python, torch, torchvision, NumPy), everything is compared to the
  bit: weights, every value of the log but times and memory, the logged diagnostics, the precisions of each class.
* On another machine, floating point differs, and with it which pseudo labels pass. There the loss curve is compared, 20
  points, by the mean of the relative differences, and the AP of the classes by the mean difference (`LOSS_TOLERANCE`,
  `AP_TOLERANCE`).
* Either way the version of the method has to be the stored one, and so have the defaults of all options and of the
  detector's recipe, some of which these runs set otherwise.

A change that moves results raises the version of the method; see "When results change" in docs/development.md.
Exit code 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "same_results.json"
MAIN = "from cissod_bench.cli.main import main; main()"
FEW_IMAGES = (
    "import functools; from cissod_bench.synthetic import shapes; "
    "shapes.generate = functools.partial(shapes.generate, train_images=240, val_images=40); "
)
ITERATIONS = 60
BURN_IN = 15
LEAST_PSEUDO_LABELS = 100
WITHOUT_PSEUDO_LABELS = ("supervised", "full-labels")
MACHINE_KEYS = ("time", "data_time", "memory_mib", "images_per_second")
"""Logged values that no two runs share."""
LOSS_TOLERANCE = 0.017
"""Mean relative difference of the curves. Between torch 2.11 and 2.15 (with Python 3.12 and 3.11) it is 0.009 in
soft-teacher and 0.003 in gbs. With theta 0.0782 in place of 0.08, as 0.88 is to 0.9, it is 0.030 in soft-teacher; with
gamma 1.2 in place of 1, 0.036 in gbs."""
AP_TOLERANCE = 0.03
"""Mean difference over classes. Between the same versions it is 0.002 in soft-teacher and 0.008 in gbs."""

Values = dict[str, Any]


def thresholds(theta: float) -> list[str]:
    """Settings with which detections of an almost untrained teacher, scores around `theta`, become pseudo labels."""
    return [
        f"model.detector.test_cfg.rcnn.score_thr={theta / 4}",
        f"model.semi_train_cfg.pseudo_label_initial_score_thr={theta / 2}",
        f"model.semi_train_cfg.rpn_pseudo_thr={theta}",
        "model.semi_train_cfg.reg_pseudo_thr=0.5",
    ]


GBS_POLICY = ["model.threshold.theta=0.08", "model.threshold.bounds=[0.05, 0.15]"]
CREST = ["theta=0.08", "pick_threshold=0.08", "generations=3"]

RUNS: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "supervised": ("supervised", [], []),
    "full-labels": ("full-labels", [], []),
    "soft-teacher": ("soft-teacher", ["theta=0.08"], thresholds(0.08)),
    "rfs": ("rfs", ["theta=0.08"], thresholds(0.08)),
    "eqlv2": ("eqlv2", ["theta=0.002"], thresholds(0.002)),
    "c2am": ("c2am", ["theta=0.08"], thresholds(0.08)),
    "seesaw": ("seesaw", ["theta=0.08"], thresholds(0.08)),
    "focal": ("focal", ["theta=0.08"], thresholds(0.08)),
    "crest": ("crest", CREST, thresholds(0.08)),
    "crest-all": ("crest", [*CREST, "align=true", "ignore_unkept=true", "reinit=true"], thresholds(0.08)),
    "daso": ("daso", ["theta=0.08", "window=10"], thresholds(0.08)),
    "defrcn": ("defrcn", ["theta=0.08", "fine_tuning=0.3"], thresholds(0.08)),
    "labelmatch": ("labelmatch", ["theta=0.08", "interval=5"], thresholds(0.08)),
    "gbs": ("gbs", ["crs_gamma=100000"], [*thresholds(0.08), *GBS_POLICY]),
    "gbs-sweep": (
        "gbs",
        ["crs_gamma=100000", "sweep=true", "generations=3", "threshold=gradient", "normalize=false"],
        [*thresholds(0.08), *GBS_POLICY],
    ),
    "own": ("own.py", [], [*thresholds(0.08), "model.threshold.value=0.08"]),
}
"""Name -> method, options and settings: every method of the registry, and the file that `create method` writes."""


WHAT_TO_DO = (
    "Raise the version of the method in cissod_bench/methods/registry.py, add a line to the history there, store the "
    "new values with `python benchmarks/same_results.py --write tests/same_results.json`, and run its published rows "
    "again."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose package is run")
    parser.add_argument("--stored", type=Path, default=STORED, help="values to compare with")
    parser.add_argument("--write", type=Path, help="write the values to this file and compare nothing")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="some of the runs")
    parser.add_argument("--loose", action="store_true", help="compare as with values of another machine")
    options = parser.parse_args()
    stored = None if options.write else json.loads(options.stored.read_text())
    bits = stored is not None and stored["machine"] == machine() and not options.loose
    with tempfile.TemporaryDirectory() as name:
        program = Program(options.tree.resolve(), Path(name))
        program("make-splits", "--task", "shapes", "--out", "split", before=FEW_IMAGES)
        program("create", "method", "own")
        changed = [] if stored is None else changed_defaults(stored.get("defaults", {}), defaults(options.tree))
        for line in changed:
            print(f"default DIFFERS: {line}", flush=True)
        differing = 0
        for run in options.only:
            started = time.perf_counter()
            found = train(program, run)
            moved = [] if stored is None else (differences if bits else loose_differences)(stored["runs"][run], found)
            differing += bool(moved)
            same = "same bits" if bits else "same within the tolerance"
            verdict = "" if stored is None else f"DIFFERS: {'; '.join(moved)}" if moved else same
            if options.write:
                store(options.write, run, found, defaults(options.tree))
            numbers = "{pseudo_labels:6,} pseudo labels, loss {loss:.6f}, AP {AP:.6f}".format(**found)
            print(f"{run:14} {time.perf_counter() - started:5.1f} s  {numbers}  {verdict}", flush=True)
    if stored is not None:
        print(f"{differing} of {len(options.only)} differ")
    if differing or changed:
        print("Meant to move results? " + WHAT_TO_DO)
    sys.exit(1 if differing or changed else 0)


def store(file: Path, run: str, found: Values, all_defaults: Values) -> None:
    """Add the values of a run to a file, which holds values of one machine and the defaults of one checkout."""
    there = json.loads(file.read_text()) if file.is_file() else {}
    runs = there.get("runs", {}) if there.get("machine") == machine() else {}
    runs = {**runs, run: found}
    in_order = {name: runs[name] for name in RUNS if name in runs}
    content = {"machine": machine(), "defaults": all_defaults, "runs": in_order}
    file.write_text(json.dumps(content, indent=1) + "\n")


class Program:
    """The command line of a checkout, in a folder."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}

    def __call__(self, *arguments: str, before: str = "") -> None:
        """Run a command, after some statements; its output is shown only if it fails."""
        command = [sys.executable, "-c", before + MAIN, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def train(program: Program, name: str) -> Values:
    """Train a run and read what it left: digests to compare, and a few numbers to look at."""
    method, options, settings = RUNS[name]
    common = [f"model.semi_train_cfg.burn_in={BURN_IN}", f"train_cfg.val_interval={ITERATIONS // 2}"]
    pairs = [*(("-o", each) for each in options), *(("--set", each) for each in [*common, *settings])]
    program(
        *("run", "--task", "shapes", "--method", method, "--split", "split", "--out", name),
        *("--iterations", str(ITERATIONS), "--device", "cpu", "--threads", "1", "--workers", "0", "--logger", "none"),
        *(argument for pair in pairs for argument in pair),
    )
    return values(program.folder / name)


def values(run: Path) -> Values:
    """What a run folder holds: digests, number of pseudo labels, last loss and AP.

    Raises:
        SystemExit: too few pseudo labels.
    """
    file = run / "checkpoints" / f"iter_{ITERATIONS}.pth"
    weights = torch.load(file, weights_only=False, pickle_module=WeightsAlone, map_location="cpu")
    scalars, diagnostics = read_lines(run / "scalars.jsonl"), read_lines(run / "observables.jsonl")
    pseudo_labels = sum(sum(line.get("pseudo_labels", {}).get("given", ())) for line in diagnostics)
    if pseudo_labels < LEAST_PSEUDO_LABELS and run.name not in WITHOUT_PSEUDO_LABELS:
        sys.exit(f"{run.name}: {pseudo_labels} pseudo labels. Lower the thresholds: this run shows nothing.")
    with np.load(run / "per_class.npz") as arrays:
        per_class = {name: arrays[name] for name in arrays.files}
    precision = per_class["precision"][..., 0]  # (10, 101, K), -1 without ground truth
    key = json.loads((run / "result.json").read_text())["key"]
    return {
        "method": key["method"],
        "version": key["method_version"],
        "weights": digest((name, tensor.numpy()) for name, tensor in sorted(weights["state_dict"].items())),
        "scalars": by_key(scalars),
        "diagnostics": by_key(diagnostics),
        "per_class": digest(sorted(per_class.items())),
        "pseudo_labels": pseudo_labels,
        "losses": [line["loss"] for line in scalars if "loss" in line],
        "class_AP": np.maximum(precision.mean(axis=(0, 1)), 0).tolist(),
        "loss": [line["loss"] for line in scalars if "loss" in line][-1],
        "AP": [line["all/AP"] for line in scalars if "all/AP" in line][-1],
    }


class WeightsAlone:
    """Reads a checkpoint whatever classes of the package it holds, which another checkout may have elsewhere."""

    class Unpickler(pickle.Unpickler):
        """Takes the package's own objects for empty ones."""

        def find_class(self, module: str, name: str) -> Any:
            """The class of that name."""
            return Unread if module.startswith("cissod_bench.") else super().find_class(module, name)


class Unread:
    """In place of an object of the package."""

    def __new__(cls, *_: Any) -> "Unread":
        """An empty one."""
        return super().__new__(cls)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Lines of JSON without the values of the machine."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MACHINE_KEYS} for line in lines]


def by_key(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Short digest of the steps and values of each logged name."""
    series: dict[str, list[Any]] = {}
    for line in lines:
        for key, value in line.items():
            series.setdefault(key, []).append((line["step"], value))
    return {key: hashlib.sha256(json.dumps(series[key]).encode()).hexdigest()[:12] for key in sorted(series)}


def digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 of named arrays: names, kinds, shapes and bytes."""
    found = hashlib.sha256()
    for name, array in arrays:
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def differences(one: Values, other: Values) -> list[str]:
    """Names of what is not the same in `other`, which may log more than `one`; or that the versions differ."""
    if other["version"] != one["version"]:
        return [versions(one, other)]
    found = []
    for key, value in one.items():
        if isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in value if other[key].get(inner) != value[inner]]
        elif other[key] != value:
            found.append(key)
    return found


def loose_differences(one: Values, other: Values) -> list[str]:
    """What differs by more than another machine explains."""
    if other["version"] != one["version"]:
        return [versions(one, other)]
    losses, theirs = np.array(one["losses"]), np.array(other["losses"])
    loss = float(np.mean(np.abs(theirs / losses - 1)))
    ap = float(np.mean(np.abs(np.array(one["class_AP"]) - np.array(other["class_AP"]))))
    found = [f"loss by {loss:.2%} on average, more than {LOSS_TOLERANCE:.1%}"] * (loss > LOSS_TOLERANCE)
    return found + [f"AP by {ap:.3f} a class, more than {AP_TOLERANCE}"] * (ap > AP_TOLERANCE)


def defaults(tree: Path = ROOT) -> Values:
    """Dotted name -> default, of the options of every method and of the recipe of the detector of `shapes`.

    Nothing for another checkout, whose modules this script does not know.
    """
    if tree.resolve() != ROOT:
        return {}
    from cissod_bench.methods.options import options_alone
    from cissod_bench.methods.registry import METHODS
    from cissod_bench.results.run_key import flat
    from cissod_bench.tasks.registry import TASKS
    from cissod_bench.training.recipes.detectors import DETECTORS

    detector = DETECTORS[TASKS["shapes"].detector]
    apart = ("title", "model", "step_seconds", "backbone_file", "weights", "file")
    recipe = {each.name: getattr(detector, each.name) for each in fields(detector) if each.name not in apart}
    options = {name: msgspec.structs.asdict(options_alone(method).options({})) for name, method in METHODS.items()}
    plain = msgspec.json.decode(msgspec.json.encode({**options, "recipe": recipe}, enc_hook=repr))
    return dict(flat("", plain))


def changed_defaults(stored: Values, now: Values) -> list[str]:
    """How defaults differ, as "gbs.gamma is 1.2, not 1.0"; nothing where one of the two is not known."""
    if not stored or not now:
        return []
    names = [name for name in {**stored, **now} if stored.get(name, "unset") != now.get(name, "unset")]
    return [f"{name} is {now.get(name, 'unset')!r}, not {stored.get(name, 'unset')!r}" for name in names]


def versions(one: Values, other: Values) -> str:
    """That the stored values are of another version of the method."""
    method = one["method"]
    return f"the values are of version {one['version']} of {method}, which is at version {other['version']}"


def machine() -> dict[str, str]:
    """What the last bits of a result depend on."""
    return {
        "processor": processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def processor() -> str:
    """Name of the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
