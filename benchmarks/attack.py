"""Mutated inputs for every reader: each must be read, or refused in one sentence, within seconds.

    python benchmarks/attack.py --count 20000 [--only arrays,records] [--first 0] [--keep FOLDER]

An input is a sound file with some bytes, numbers, texts or parts changed; its number decides how, so a fault can be
repeated with `--first NUMBER --count 1`. Anything but a result or a `UserError` is a fault, and so is a marker file
that one of the planted payloads would write.
"""

import argparse
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate, load_evaluation
from cissod_bench.evaluation.inputs import ground_truth, read_detections, read_ground_truth
from cissod_bench.launch.grid import read_grid, spec_of
from cissod_bench.leaderboard.comparable import comparable_run_sets
from cissod_bench.leaderboard.every_number import tidy_table
from cissod_bench.leaderboard.tables import run_set_table
from cissod_bench.leaderboard.writers import WRITERS
from cissod_bench.results.curves import read_curves
from cissod_bench.results.diagnostics import read_observables
from cissod_bench.results.external import write_run
from cissod_bench.results.record import load_result
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.results.run_key import RunKey
from cissod_bench.splits import interop
from cissod_bench.splits.folder import load_split, read_ids, statistics_of
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.splits.verify import verify_split
from cissod_bench.tasks.task_file import TEMPLATE, read_task_file

LONGEST = 10
"""Seconds that reading an input may take."""
PAYLOAD = "__import__('pathlib').Path('MARKER').touch()"
NUMBERS = (
    "-1",
    "0",
    "0.5",
    "1e999",
    "-1e308",
    "NaN",
    "Infinity",
    "9" * 19,
    "9" * 30,
    "9" * 5000,
    "1e-320",
    "true",
    "-0",
)
TEXTS = (
    "", "\\u0000", "\\ud800", "../../../x", "/etc/passwd", "/dev/zero", "x" * 10_000, "\\u202e", "=1+1", "<script>",
    "{{$HOME:x}}", f"{{{{{PAYLOAD}}}}}", f"}}}}{PAYLOAD},#", PAYLOAD, "%s%n", "é", "[red]", "\\u001b[31m",
)  # fmt: skip
PARTS = (
    "null",
    "[]",
    "{}",
    "[[]]",
    '{"a": 1}',
    "[" * 2000,
    "[" * 200 + "]" * 200,
    '"a"',
    "1",
    "\xff",
    "\x00",
    "'",
    "#",
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: of bytes, of a number, of a text, or of a part."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice((_bytes, _bytes, _number, _number, _text, _part))(content, rng)
    return content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return rng.randbytes(3)
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 1, 2, 8, 64, 4096)))
    change = rng.randrange(6)
    if change == 0:
        return content[:start] + bytes([content[start] ^ 1 << rng.randrange(8)]) + content[start + 1 :]
    if change == 1:
        return content[:start] + content[end:]
    if change == 2:
        return content[:end] + content[start:]
    if change == 3:
        return content[:start]
    if change == 4:
        return content[:start] + rng.randbytes(end - start) + content[end:]
    return (
        content[:start]
        + rng.choice((b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b",", b"}"))
        + content[start:]
    )


def _replaced(pattern: bytes, content: bytes, new: str, rng: random.Random) -> bytes:
    found = list(re.finditer(pattern, content))
    if not found:
        return content
    one = rng.choice(found)
    return content[: one.start()] + new.encode("latin-1") + content[one.end() :]


def _number(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb"-?\d+(?:\.\d+)?", content, rng.choice(NUMBERS), rng)


def _text(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb'"[^"]*"', content, f'"{rng.choice(TEXTS)}"', rng)


def _part(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb'"[^"]*"|[\[{][^\[\]{}]*[\]}]|-?\d+(?:\.\d+)?', content, rng.choice(PARTS), rng)


def mutated_archive(content: bytes, rng: random.Random) -> bytes:
    """An archive of arrays with a member changed, its checksum recomputed; or changed bytes of the archive itself."""
    if rng.random() < 0.3:
        return _bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    change = rng.randrange(5)
    if change == 0:  # the header: type, order and shape
        members[name] = (
            members[name][:128].replace(
                *rng.choice(((b"<f8", b"<f4"), (b"<f8", b"|O8"), (b"<i8", b"<f8"), (b"False", b"True "), (b"(", b"(9")))
            )
            + members[name][128:]
        )
    elif change == 1:
        values = bytearray(members[name])
        if len(values) > 136:
            place = 128 + 8 * rng.randrange((len(values) - 128) // 8)
            values[place : place + 8] = np.array(rng.choice((np.nan, np.inf, -1, -2, 1.5, 1e300))).tobytes()
        members[name] = bytes(values)
    elif change == 2:
        members[name] = mutated(members[name], rng)
    elif change == 3:
        del members[name]
    else:
        members[rng.choice(("x.npy", "../x.npy", "/x.npy", "about.npy", "x"))] = rng.randbytes(40)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for each, data in members.items():
            archive.writestr(each, data)
    return out.getvalue()


def sound_files(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Any], Callable[[bytes, random.Random], bytes]]]:
    """Reader -> a sound file, what reads it, and how it is changed. Everything lies in `folder`."""
    rng = random.Random(0)
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(1, 31)]
    categories = [{"id": i, "name": name} for i, name in enumerate(("cat", "dog", "a rare class", "another one"), 1)]
    boxes = [
        {"id": i, "image_id": rng.randint(1, 30), "category_id": rng.randint(1, 4),
         "bbox": [rng.randint(0, 30), rng.randint(0, 20), rng.randint(3, 20), 9.5], "iscrowd": 0, "area": 40.0}
        for i in range(1, 121)
    ]  # fmt: skip
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    found = [{name: box[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.5} for box in boxes[::2]]
    detections = folder / "detections.json"
    detections.write_text(json.dumps(found))
    truth = read_ground_truth(annotations)
    task = folder / "task.toml"
    task.write_text(TEMPLATE)
    split = folder / "split"
    make_splits(read_task_file(task), annotations, [(split, Variant(seed=0))])
    run = folder / "run"
    groups = {"maj": ("cat", "dog"), "min": ("a rare class", "another one")}
    key = RunKey(
        task="my-task", protocol=1, split_digest="d" * 64, split_seed=0, train_seed=0, method="gbs",
        method_options={"eta": 0.9, "levels": [1, 2]}, schedule="paper", iterations=10, shortened=False, detector="r50",
        evaluator="hotcoco", max_detections=100, method_version=2, resolved_options={"eta": 0.9}, batch=(8, 32),
    )  # fmt: skip
    write_run(run, key, evaluate(truth, detections, groups), detections, split=str(split))
    (run / "scalars.jsonl").write_text("".join(f'{{"step": {i}, "all/AP": 0.25, "loss": 1.5}}\n' for i in range(20)))
    counts = {"right": [1, 0, 0, 2], "given": [2, 1, 0, 3], "annotated": [4, 4, 4, 4]}
    line = json.dumps({"step": 7, "weights": [1.0, None, 0.5, 2.0], "pseudo_labels": counts}) + "\n"
    (run / "observables.jsonl").write_text(20 * line)
    settings = "run = {'task': 'my-task', 'method': 'gbs', 'batch': [8, 32]}\n"
    (run / "config.py").write_text("model = {'a': [1, 2.5, None, 'x']}\n" + settings)
    sweep = folder / "sweep.toml"
    sweep.write_text(
        'out = "runs"\n[run]\ntask = "shapes"\n[[grid]]\nmethod = ["rfs", "gbs"]\nseed = [0, 1]\n'
        '[[grid]]\nablation = ["gbr"]\noption = [["eta=0.9"]]\nset = ["optim_wrapper.optimizer.lr=0.1"]\n'
    )
    columns = read_coco(annotations)[0]

    def report(path: Path) -> None:
        sets = comparable_run_sets([(path, load_result(path))])
        for table in (*(run_set_table(each, sets) for each in sets), tidy_table(sets)):
            for write in WRITERS.values():
                write(table)

    def spec(path: Path) -> None:
        for values in read_grid(path, {}).runs:
            spec_of(values)

    return {
        "annotations": (annotations, lambda path: ground_truth(read_coco(path)[0], path), mutated),
        "detections": (detections, lambda path: read_detections(path, truth), mutated),
        "records": (run / "result.json", report, mutated),
        "arrays": (run / "per_class.npz", lambda path: load_evaluation(path).metrics(), mutated_archive),
        "curves": (run / "scalars.jsonl", lambda path: read_curves(path.parent), mutated),
        "diagnostics": (run / "observables.jsonl", lambda path: read_observables(path.parent, 4), mutated),
        "configurations": (run / "config.py", lambda path: RunFolder(path.parent).configured(), mutated),
        "statistics": (split / "statistics.json", lambda path: statistics_of(path.parent), mutated),
        "manifests": (split / "split.json", lambda path: load_split(path.parent), mutated),
        "splits": (split / "labeled.json", lambda path: verify_split(path.parent), mutated),
        "ids": (split / "ids" / "majority.txt", read_ids, mutated),
        "lists": (split / "ids" / "minority.txt", lambda path: interop.read_ids(path, columns), mutated),
        "tasks": (task, read_task_file, mutated),
        "sweeps": (sweep, spec, mutated),
    }  # fmt: skip


def too_long(number: int, frame: Any) -> None:
    """Raise in the reader that takes too long."""
    raise TimeoutError(f"not read in {LONGEST} s")


def attack(name: str, folder: Path, first: int, count: int, keep: Path | None) -> tuple[int, list[str]]:
    """Read `count` changed inputs; return how many were refused, and the faults with their numbers."""
    path, read, change = sound_files(folder)[name]
    content = path.read_bytes()
    read(path)
    refused, faults = 0, []
    for number in range(first, first + count):
        path.write_bytes(change(content, random.Random(f"{name} {number}")))
        signal.alarm(LONGEST)
        try:
            read(path)
        except UserError as error:
            refused += 1
            if len(str(error)) > 20_000:
                faults.append(f"{name} {number}: a message of {len(str(error))} characters")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            faults.append(
                f"{name} {number}: {type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
            )
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{number}{path.suffix}").write_bytes(path.read_bytes())
        finally:
            signal.alarm(0)
        if Path("MARKER").exists():
            faults.append(f"{name} {number}: a payload was executed")
            Path("MARKER").unlink()
    path.write_bytes(content)
    return refused, faults


def main() -> int:
    """Attack the readers and print a line for each; the exit code is 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", default="", help="names of readers, with commas")
    parser.add_argument("--keep", type=Path, help="folder for inputs that made a fault")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    keep = options.keep.resolve() if options.keep else None
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        (Path(folder) / "files").mkdir()
        names = list(sound_files(Path(folder) / "files"))
        for number, name in enumerate(options.only.split(",") if options.only else names):
            started = time.perf_counter()
            place = Path(folder) / str(number)
            place.mkdir()
            refused, faults = attack(name, place, options.first, options.count, keep)
            seconds = time.perf_counter() - started
            print(
                f"{name}: {options.count} inputs, {refused} refused, {len(faults)} faults, {seconds:.0f} s", flush=True
            )
            for fault in faults[:20]:
                print(f"    {fault}", flush=True)
            found += len(faults)
        os.chdir("/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
