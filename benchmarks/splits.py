"""Time and memory of `make-splits` on a file in the exact shape of Objects365 v2 train, and at the size of COCO.

    python benchmarks/splits.py                         1/10 of Objects365: 2.5 M boxes, 480 MB (about two minutes)
    python benchmarks/splits.py --scale 1               all of it: 25.4 M boxes, 4.8 GB
    python benchmarks/splits.py --coco FILE             a COCO file, side by side with pycocotools and json.load

Every case runs in a process of its own, from start to end, with the peak memory of that process. `bare` is the floor:
it reads and decodes the same bytes in the same pieces with the same parser, and throws the result away. At 1/10 and
below json.load and pycocotools run too; at full scale they would need 20 GB and more.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cissod_bench.splits.objects365 import FROM_COCO, NAMES

IMAGES, BOXES = 1_742_292, 25_407_598  # of Objects365 v2 train
PROGRAM = [sys.executable, "-m", "cissod_bench.cli.main"]

BARE = """
import gc, sys, msgspec
from pathlib import Path
from cissod_bench.splits.pieces import _Box, _Image
from cissod_bench.splits.stream import JsonObject, opened
gc.disable()
path = Path(sys.argv[1])
decoders = {"images": msgspec.json.Decoder(list[_Image]).decode, "annotations": msgspec.json.Decoder(list[_Box]).decode}
with opened(path) as content:
    document = JsonObject(content, path)
    for key in document.keys():
        if key in decoders:
            for _ in document.elements(decoders[key]):
                pass
        else:
            document.skip()
"""
JSON_LOAD = "import json, sys; json.load(open(sys.argv[1]))"
PYCOCOTOOLS = "import sys; from pycocotools.coco import COCO; COCO(sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="part of Objects365 v2 train")
    parser.add_argument("--coco", type=Path, help="a COCO file to measure instead")
    parser.add_argument("--folder", type=Path, help="where the made-up file goes (default: temporary files)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case; the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.coco:
            measure_coco(options.coco, folder, options.repeat)
        else:
            measure_objects365(options.scale, folder, options.repeat)


def measure_coco(file: Path, folder: Path, repeat: int) -> None:
    make = [*PROGRAM, "make-splits", "--task", "coco-split1", "--annotations", str(file), "--no-cache", "--json"]
    cases = {
        "bare": [sys.executable, "-c", BARE, str(file)],
        "make-splits": [*make, "--no-plot"],
        "make-splits with plot": make,
        "json.load": [sys.executable, "-c", JSON_LOAD, str(file)],
        "pycocotools": [sys.executable, "-c", PYCOCOTOOLS, str(file)],
    }
    table = {}
    for case, command in cases.items():
        runs = []
        for run in range(repeat):
            out = ["--out", str(folder / f"{case}{run}")] if command[0:3] == PROGRAM else []
            runs.append(measure([*command, *out]))
        table[case] = min(runs)
    show(table, "pycocotools")


def measure_objects365(scale: float, folder: Path, repeat: int) -> None:
    file, coco = folder / "objects365.json", folder / "coco.json"
    started = time.perf_counter()
    write_objects365(file, round(IMAGES * scale), round(BOXES * scale))
    write_coco(coco)
    print(f"{file.stat().st_size / 1e9:.2f} GB written in {time.perf_counter() - started:.0f} s", flush=True)
    table = {"bare": min(measure([sys.executable, "-c", BARE, str(file)]) for _ in range(repeat))}
    make = [
        *PROGRAM,
        "make-splits",
        "--task",
        "coco-o365",
        "--annotations",
        str(file),
        "--majority-annotations",
        str(coco),
    ]
    make += ["--no-plot", "--json"]
    firsts, seconds = [], []
    for run in range(repeat):
        cache = ["--cache", str(folder / f"cache{run}")]
        firsts.append(measure([*make, *cache, "--out", str(folder / f"first{run}")]))
        seconds.append(measure([*make, *cache, "--seed", "1", "--out", str(folder / f"second{run}")]))
    table |= {"make-splits, first": min(firsts), "make-splits, second seed": min(seconds)}
    if scale <= 0.1:
        table["json.load"] = measure([sys.executable, "-c", JSON_LOAD, str(file)])
        table["pycocotools"] = measure([sys.executable, "-c", PYCOCOTOOLS, str(file)])
    show(table, "bare")


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Seconds from start to end, and peak memory in GB, of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def show(table: dict[str, tuple[float, float]], reference: str) -> None:
    seconds, memory = table[reference]
    print(f"{'':26} {'s':>8} {'GB':>7}   relative to {reference}")
    for case, (case_seconds, case_memory) in table.items():
        print(
            f"{case:26} {case_seconds:8.2f} {case_memory:7.3f}   time x {case_seconds / seconds:.2f}, "
            f"memory x {case_memory / memory:.2f}"
        )


def write_objects365(path: Path, images: int, boxes: int) -> None:
    """A file with the keys, the number of digits and the class frequencies (a power law) of the official one."""
    generator = random.Random(0)
    classes = generator.choices(range(1, 366), [1 / (rank + 2) ** 1.5 for rank in range(365)], k=1 << 16)
    corners = [
        f"{generator.uniform(0, 400):.10f}, {generator.uniform(0, 300):.10f}, "
        f"{generator.uniform(4, 200):.10f}, {generator.uniform(4, 200):.10f}"
        for _ in range(1 << 16)
    ]
    areas = [f"{generator.uniform(16, 40_000):.10f}" for _ in range(1 << 16)]
    with path.open("w", buffering=1 << 22) as file:
        file.write('{"images": [')
        for start in range(1, images + 1, 10_000):
            block = [
                f'{{"height": 512, "id": {number}, "license": 5, "width": 769, "file_name": '
                f'"images/v1/patch{number % 51}/objects365_v1_{number:08}.jpg", "url": ""}}'
                for number in range(start, min(images + 1, start + 10_000))
            ]
            file.write((", " if start > 1 else "") + ", ".join(block))
        file.write('], "annotations": [')
        for start in range(1, boxes + 1, 1 << 16):
            shift = generator.randrange(1 << 16)
            block = [
                f'{{"id": {number}, "iscrowd": 0, "isfake": 0, "area": {areas[number & 0xFFFF]}, "isreflected": 0, '
                f'"bbox": [{corners[number + shift & 0xFFFF]}], "image_id": {1 + number * images // (boxes + 1)}, '
                f'"category_id": {classes[number * 7 & 0xFFFF]}}}'
                for number in range(start, min(boxes + 1, start + (1 << 16)))
            ]
            file.write((", " if start > 1 else "") + ", ".join(block))
        categories = [{"name": name, "id": number} for number, name in enumerate(NAMES, 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def write_coco(path: Path) -> None:
    """A small COCO file: D_m of the task, here not what is measured."""
    names = sorted([*FROM_COCO, "sports ball"])
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012}.jpg", "width": 640, "height": 480} for number in range(80)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": number + 1, "bbox": [1, 2, 30, 40]}
            for number in range(80)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
