"""Is a split the same bytes everywhere? Makes it again under other conditions and compares every file.

    python benchmarks/same_bytes.py --annotations instances_train2017.json
    python benchmarks/same_bytes.py --annotations FILE --task mine.toml --python old/bin/python --python new/bin/python

The conditions: another PYTHONHASHSEED, a locale without UTF-8, a file whose lists are shuffled and whose keys come in
another order, a compressed file, one processor core, a second reading from the cache; and, with --python, other
interpreters, which need numpy, msgspec, typer and rich of any version, and nothing else. Exit code 1 if a byte differs.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = "import sys, numpy; print(f'Python {sys.version.split()[0]}, NumPy {numpy.__version__}')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--annotations", type=Path, required=True, help="training annotations, COCO form, not compressed"
    )
    parser.add_argument("--task", default="coco-split1", help="a built-in task or a task file")
    parser.add_argument("--python", action="append", default=[], help="another interpreter; may be repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shuffled = write_shuffled(options.annotations, folder / "shuffled.json")
        packed = folder / "packed.json.gz"
        packed.write_bytes(gzip.compress(options.annotations.read_bytes(), 1))
        cache = ("--cache", str(folder / "cache"))
        core = {min(os.sched_getaffinity(0))}
        cases: list[tuple[str, str, Path, dict[str, Any]]] = [
            ("as it is", sys.executable, options.annotations, {}),
            ("PYTHONHASHSEED=1", sys.executable, options.annotations, {"environment": {"PYTHONHASHSEED": "1"}}),
            ("PYTHONHASHSEED=2", sys.executable, options.annotations, {"environment": {"PYTHONHASHSEED": "2"}}),
            ("LC_ALL=C, no UTF-8 mode", sys.executable, options.annotations, {"environment": PLAIN_LOCALE}),
            ("shuffled", sys.executable, shuffled, {}),
            ("gzip", sys.executable, packed, {}),
            ("one core", sys.executable, options.annotations, {"cores": core}),
            ("first reading with a cache", sys.executable, options.annotations, {"more": cache}),
            ("from the cache", sys.executable, options.annotations, {"more": cache}),
        ]
        for python in options.python:
            cases += [("as it is", python, options.annotations, {}), ("shuffled", python, shuffled, {})]
        broken = compare(cases, options.task, folder)
    sys.exit(1 if broken else 0)


PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def compare(cases: Sequence[tuple[str, str, Path, dict[str, Any]]], task: str, folder: Path) -> int:
    """Make every case and print what differs from the first; returns the number of cases that differ."""
    first: dict[str, bytes] | None = None
    broken = 0
    for number, (condition, python, annotations, how) in enumerate(cases):
        out = folder / f"split{number}"
        started = time.perf_counter()
        make(python, task, annotations, out, **how)
        found = contents(out)
        first = found if first is None else first
        differing = differences(first, found)
        broken += bool(differing)
        versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
        digest = json.loads(found["split.json"])["digest"][:12]
        verdict = f"DIFFERS: {', '.join(differing)}" if differing else "same bytes"
        print(f"{versions:32} {condition:28} {time.perf_counter() - started:5.1f} s  {digest}  {verdict}", flush=True)
    print(f"{len(cases)} cases, {len(first or {})} files each, {broken} differ")
    return broken


def make(
    python: str,
    task: str,
    annotations: Path,
    out: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    more: Sequence[str] = ("--no-cache",),
) -> None:
    program = [python, "-m", "cissod_bench.cli.main", "make-splits", "--task", task, "--no-plot"]
    place = ["--annotations", str(annotations), "--out", str(out)]
    subprocess.run(
        [*program, *place, *more],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a split; `source.json` names the file that was read, so it may differ."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "source.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def differences(first: Mapping[str, bytes], second: Mapping[str, bytes]) -> list[str]:
    """Names of the files that differ or that only one of the two has."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def write_shuffled(annotations: Path, target: Path) -> Path:
    """The same annotations, every list in another order, the keys too."""
    content = json.loads(annotations.read_bytes())
    generator = random.Random(0)
    keys = list(content)
    generator.shuffle(keys)
    for key in ("images", "annotations", "categories"):
        generator.shuffle(content[key])
    target.write_text(json.dumps({key: content[key] for key in keys}))
    return target


if __name__ == "__main__":
    main()
