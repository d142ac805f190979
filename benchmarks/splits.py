"""Time and memory of reading, selecting and writing splits, at the size of Objects365 v2 train and of COCO.

    python benchmarks/splits.py                         1/10 of Objects365: 2.5 M boxes, 0.5 GB (about two minutes)
    python benchmarks/splits.py --scale 1               all of it: 25.4 M boxes, 5 GB; three times that on the disk
    python benchmarks/splits.py --coco FILE             COCO's boxes, as they are and in the official file's layout

Every case is a process of its own, measured from start to end with everything that it starts. `s` is the time on the
wall, `cpu` the seconds of all its processes on all cores: on a busy machine the second tells more. `GB` is the largest
sum of the memory (PSS: what processes share counts once) of all its processes, sampled 20 times a second, or the exact
peak of the largest one where that is more. With --repeat the cases take turns and the fastest run of each counts.

`bare` is the floor: one process reads and decodes the same bytes in the same pieces with the same parser, and throws
the result away. json.load and pycocotools.COCO load the file and nothing else; beyond 1/10 they would need 20 GB.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.coco.objects365 import FROM_COCO, NAMES

IMAGES, BOXES = 1_742_292, 25_407_598  # of Objects365 v2 train
PYTHON = [sys.executable, "-c"]
MAKE = [sys.executable, "-m", "cissod_bench.cli.main", "make-splits", "--json"]

BARE = """
import gc, sys, msgspec
from pathlib import Path
from cissod_bench.coco.decode import _Box, _Image
from cissod_bench.coco.stream import JsonObject, opened
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
READER = """
import sys
from pathlib import Path
from cissod_bench.coco.reader import read_coco
read_coco(Path(sys.argv[1]), processes=int(sys.argv[2]))
"""
STAGES = """
import sys, time
from pathlib import Path
from cissod_bench.coco.cache import cached
from cissod_bench.splits.make import write_plan
from cissod_bench.splits.plan import Variant, plan_split
from cissod_bench.splits.sources import read_sources
from cissod_bench.coco.reader import read_coco
from cissod_bench.tasks.registry import get_task

def stage(name, function):
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    started = time.perf_counter(), time.process_time()
    result = function()
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    print(f"{name:26} {seconds:8.2f} {cpu:8.2f} {peak:7.3f}", flush=True)
    return result

task, train, majority, cache, out = get_task("coco-o365"), *map(Path, sys.argv[1:])
read = cached(read_coco, cache)
sources, files = stage("  columns from the cache", lambda: read_sources(task, train, majority, read))
plan = stage("  selection and statistics", lambda: plan_split(task, sources, Variant(2)))
out.mkdir()
stage("  files and their digests", lambda: write_plan(out, plan, files))
"""


@dataclass(frozen=True, order=True)
class Cost:
    """What a case took: seconds on the wall, seconds of all cores, and GB of memory."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="part of Objects365 v2 train")
    parser.add_argument("--coco", type=Path, help="instances_train2017.json, or its boxes, to measure instead")
    parser.add_argument("--folder", type=Path, help="where made-up and written files go (default: temporary files)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.coco:
            masks = folder / "with_masks.json"
            # In a process of its own: a child's peak memory counts from that of the process that starts it.
            writer = multiprocessing.get_context("spawn").Process(target=write_coco_layout, args=(options.coco, masks))
            writer.start()
            writer.join()
            for file in (options.coco, masks):
                measure_coco(file, folder, options.repeat)
        else:
            measure_objects365(options.scale, folder, options.repeat)


def measure_coco(file: Path, folder: Path, repeat: int) -> None:
    print(f"\n{file.name}, {file.stat().st_size / 1e6:.0f} MB")
    make = [*MAKE, "--task", "coco-split1", "--annotations", str(file), "--no-cache", "--force"]
    make += ["--out", str(folder / "split")]
    cases = {
        "bare": [*PYTHON, BARE, str(file)],
        "reader, 1 process": [*PYTHON, READER, str(file), "1"],
        "reader, 2 processes": [*PYTHON, READER, str(file), "2"],
        "make-splits --no-plot": [*make, "--no-plot"],
        "make-splits": make,
        "json.load": [*PYTHON, JSON_LOAD, str(file)],
        "pycocotools.COCO": [*PYTHON, PYCOCOTOOLS, str(file)],
    }
    show(measure_all(cases, repeat), "pycocotools.COCO")


def measure_objects365(scale: float, folder: Path, repeat: int) -> None:
    file, coco, cache = folder / "objects365.json", folder / "coco.json", folder / "cache"
    started = time.perf_counter()
    write_objects365(file, round(IMAGES * scale), round(BOXES * scale))
    write_coco(coco, round(118_287 * scale), round(860_001 * scale))
    print(f"{file.stat().st_size / 1e9:.2f} GB written in {time.perf_counter() - started:.0f} s", flush=True)
    make = [*MAKE, "--task", "coco-o365", "--annotations", str(file), "--majority-annotations", str(coco)]
    make += ["--no-plot", "--force", "--out", str(folder / "split")]
    cases = {
        "bare": [*PYTHON, BARE, str(file)],
        "reader, 1 process": [*PYTHON, READER, str(file), "1"],
        "reader, 2 processes": [*PYTHON, READER, str(file), "2"],
        "make-splits --no-cache": [*make, "--no-cache"],
        "make-splits, first": ["sh", "-c", 'rm -rf "$0" && exec "$@"', str(cache), *make, "--cache", str(cache)],
        "make-splits, second seed": [*make, "--cache", str(cache), "--seed", "1"],
    }
    if scale <= 0.1:
        cases["json.load"] = [*PYTHON, JSON_LOAD, str(file)]
        cases["pycocotools.COCO"] = [*PYTHON, PYCOCOTOOLS, str(file)]
    show(measure_all(cases, repeat), "bare")
    print("of a second seed, in one process:", flush=True)
    stages = [*PYTHON, STAGES, str(file), str(coco), str(cache), str(folder / "stages")]
    subprocess.run(stages, check=True)


def measure_all(cases: dict[str, list[str]], repeat: int) -> dict[str, Cost]:
    """The fastest run of each case; the cases take turns."""
    runs = [{name: measure(command) for name, command in cases.items()} for _ in range(repeat)]
    return {name: min(run[name] for run in runs) for name in cases}


def measure(command: Sequence[str]) -> Cost:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ended, peaks = threading.Event(), [0.0]

    def sample() -> None:
        while not ended.wait(0.05):
            peaks.append(tree_memory(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    ended.set()
    sampler.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, max(*peaks, usage.ru_maxrss * 1024 / 1e9))


def tree_memory(pid: int) -> float:
    """GB of memory of a process and its descendants; those that end meanwhile count nothing."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024 / 1e9
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return total
    return total + sum(map(tree_memory, children))


def show(table: dict[str, Cost], reference: str) -> None:
    base = table[reference]
    print(f"{'':26} {'s':>8} {'cpu':>8} {'GB':>7}   relative to {reference}")
    for case, cost in table.items():
        print(
            f"{case:26} {cost.wall:8.2f} {cost.cpu:8.2f} {cost.memory:7.3f}   time x {cost.wall / base.wall:.2f}, "
            f"cpu x {cost.cpu / base.cpu:.2f}, memory x {cost.memory / base.memory:.2f}",
            flush=True,
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


def write_coco_layout(source: Path, target: Path) -> None:
    """The images and boxes of a COCO file in the layout, with the keys and at the size (448 MB) of the official one.

    Masks are made up: a polygon of about 30 points in each box, every hundredth a run-length code.
    """
    generator = random.Random(0)
    content = json.loads(source.read_bytes())
    offsets = [[generator.random() for _ in range(2 * generator.choice((8, 16, 24, 40)))] for _ in range(4096)]
    with target.open("w", buffering=1 << 22) as file:
        info = {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2017}
        file.write(f'{{"info": {json.dumps(info)}, "licenses": [], "images": [')
        for number, image in enumerate(content["images"]):
            name = image["file_name"]
            fields = {
                "license": 3,
                "file_name": name,
                "coco_url": f"http://images.cocodataset.org/train2017/{name}",
                "height": image["height"],
                "width": image["width"],
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm9.staticflickr.com/8186/{8_000_000_000 + image['id']}_4c5eba1c3f_z.jpg",
                "id": image["id"],
            }
            file.write((", " if number else "") + json.dumps(fields))
        file.write('], "annotations": [')
        for number, box in enumerate(content["annotations"]):
            x, y, width, height = box["bbox"]
            points = offsets[number % len(offsets)]
            mask: object = [
                [round(y + height * u, 2) if place % 2 else round(x + width * u, 2) for place, u in enumerate(points)]
            ]
            if number % 100 == 0:
                mask = {"counts": [int(1000 * u) for u in points] * 4, "size": [480, 640]}
            fields = {
                "segmentation": mask,
                "area": box["area"],
                "iscrowd": 0,
                "image_id": box["image_id"],
                "bbox": box["bbox"],
                "category_id": box["category_id"],
                "id": box["id"],
            }
            file.write((", " if number else "") + json.dumps(fields))
        file.write(f'], "categories": {json.dumps(content["categories"])}}}')


def write_coco(path: Path, images: int, boxes: int) -> None:
    """COCO as the other source of the task, D_m: so many images and boxes under its class names."""
    names = sorted([*FROM_COCO, "sports ball"])
    with path.open("w", buffering=1 << 22) as file:
        file.write('{"images": [')
        for number in range(1, images + 1):
            image = f'{{"id": {number}, "file_name": "{number:012}.jpg", "width": 640, "height": 480}}'
            file.write((", " if number > 1 else "") + image)
        file.write('], "annotations": [')
        for number in range(1, boxes + 1):
            box = f"[{number % 600}.25, {number % 400}.5, {1 + number % 39}.75, {1 + number % 59}.5]"
            file.write(
                f'{", " if number > 1 else ""}{{"id": {number}, "image_id": {1 + number * images // (boxes + 1)}, '
                f'"category_id": {1 + number % len(names)}, "bbox": {box}, "area": 100.5, "iscrowd": 0}}'
            )
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


if __name__ == "__main__":
    main()
