"""Whether reading and augmenting images keeps up with the step: real runs on generated photographs.

Images of COCO's usual size with smooth content, whose JPEGs are about as large as COCO's.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

TASK = """
name = "photographs"
version = 1
[data]
train_annotations = "train.json"
train_images = "images"
val_annotations = "val.json"
val_images = "images"
[groups]
minority = ["class 0"]
[labeled]
fraction = 0.2
floor = 1
[training]
detector = "{detector}"
iterations = 180000
"""


def write_data(folder: Path, detector: str, images: int, classes: int = 80) -> None:
    """JPEGs of 640 x 480, annotations, a task file."""
    numbers = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    listed, annotations = [], []
    for image in range(images):
        coarse = numbers.integers(0, 255, (40, 54, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)).astype(np.int16)
        picture = (picture + numbers.normal(0, 14, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"images/{image}.jpg", quality=90)
        listed.append({"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480})
        for _ in range(7):
            corner, sides = numbers.uniform(0, 0.6, 2) * (640, 480), numbers.uniform(0.1, 0.4, 2) * (640, 480)
            label, number = int(numbers.integers(0, classes)), len(annotations) + 1
            box = {"bbox": [*corner.tolist(), *sides.tolist()], "area": float(sides.prod()), "iscrowd": 0}
            annotations.append({"id": number, "image_id": image, "category_id": label, **box})
    categories = [{"id": label, "name": f"class {label}"} for label in range(classes)]
    for name, kept in (("train", listed), ("val", listed[:8])):
        ids = {each["id"] for each in kept}
        boxes = [each for each in annotations if each["image_id"] in ids]
        content = {"images": kept, "annotations": boxes, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "task.toml").write_text(TASK.format(detector=detector))


def run(report: Any, device: str) -> None:
    """Seconds of a step and of waiting for its images, by number of loader workers."""
    on_gpu = device == "cuda"
    folder = report.file.parent / "photographs"
    write_data(folder, "r50-fpn" if on_gpu else "r18-small", 400 if on_gpu else 30)
    sizes = [path.stat().st_size for path in (folder / "images").iterdir()]
    report.add("KiB of an image", sum(sizes) / len(sizes) / 1024)
    program = [sys.executable, "-m", "cissod_bench.cli.main"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    task = ["--task", str(folder / "task.toml")]
    subprocess.run([*program, "make-splits", *task, "--data-root", folder, "--out", folder / "split", "--no-plot"],
                   check=True, env=environment)  # fmt: skip
    for workers in (4, 8, 12) if on_gpu else (1,):
        code = [sys.executable, __file__, str(folder), str(workers), "60" if on_gpu else "3"]
        found = subprocess.run(code, env=environment, capture_output=True, text=True)
        report.add(f"batches a second, {workers} workers", (found.stdout.split() or [found.stderr[-500:]])[-1])
    out = folder / "run"
    command = [*program, "run", *task, "--data-root", folder, "--method", "gbs", "--split", folder / "split",
               "--out", out, "--device", device, "--iterations", "150" if on_gpu else "2", "--workers",
               "8" if on_gpu else "1", *(["--precision", "bf16"] if on_gpu else [])]  # fmt: skip
    try:
        status = subprocess.run(command, env=environment, timeout=max(10.0, report.seconds_left() - 3)).returncode
    except subprocess.TimeoutExpired:
        status = None
    lines = [json.loads(line) for line in (out / "scalars.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "data_time" in line and "time" in line]
    result = json.loads((out / "result.json").read_text()) if (out / "result.json").exists() else {}
    report.add("a run", {
        "exit_status": status, "steps": [[line.get("step"), line["time"], line["data_time"]] for line in steps],
        "gpu_memory_mib": result.get("gpu_memory_mib"), "seconds": result.get("timing"),
    })  # fmt: skip


def batches_a_second(folder: Path, workers: int, count: int) -> float:
    """Of the training loader alone."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    from cissod_bench.training.build_config import build_config
    from cissod_bench.training.job import resolve_job
    from cissod_bench.training.spec import RunSpec

    torch.set_num_threads(1)
    init_default_scope("mmdet")
    spec = RunSpec(task=str(folder / "task.toml"), method="gbs", split=folder / "split", out=folder / "none",
                   data_root=folder, iterations=1000, workers=workers)  # fmt: skip
    job = resolve_job(spec)
    batches = iter(Runner.build_dataloader(build_config(job).train_dataloader))
    for _ in range(2 * workers):
        next(batches)
    started = time.monotonic()
    for _ in range(count):
        next(batches)
    return count / (time.monotonic() - started)


if __name__ == "__main__":
    print(f"{batches_a_second(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):.2f}", flush=True)
    os._exit(0)  # without waiting for the workers
