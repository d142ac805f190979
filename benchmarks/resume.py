"""How long a run of COCO's size takes from its start to its first iteration, begun anew and at iteration 100,000.

    python benchmarks/resume.py --annotations instances_train2017.json --work /tmp/resume-benchmark

Makes a split of the real annotations (JSON, or JSON packed with xz), gives every image the content of one picture
(hard links), trains a small detector for two iterations, sets its checkpoint to iteration 100,000, and starts it again.
Each start is a process of its own; times count from before it is launched, with all imports. What is measured is what
grows with the data: reading annotations, looking for images, the sampler's position, the pool of pseudo labels.
"""

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TASK = """
name = "big"
title = "COCO train2017 with one picture for all images"
version = 1
[data]
train_annotations = "train.json"
train_images = "images"
val_annotations = "val.json"
val_images = "images"
[groups]
minority = ["toaster", "hair drier"]
[labeled]
fraction = 0.1
floor = 10
[training]
detector = "r18-small"
iterations = 180000
"""
ITERATION = 100_000
LINKS = 10_000
"""Names of one file; file systems allow some ten thousand."""


def prepare(annotations: Path, work: Path) -> None:
    import cv2
    import numpy as np

    from cissod_bench.splits.make import make_splits
    from cissod_bench.splits.plan import Variant
    from cissod_bench.tasks.registry import get_task

    work.mkdir(parents=True)
    content = annotations.read_bytes()
    if annotations.suffix == ".xz":
        content = lzma.decompress(content)
    (work / "train.json").write_bytes(content)
    truth = json.loads(content)
    first = {image["id"] for image in truth["images"][:5000]}
    boxes = [box for box in truth["annotations"] if box["image_id"] in first]
    (work / "val.json").write_text(json.dumps({**truth, "images": truth["images"][:5000], "annotations": boxes}))
    (work / "images").mkdir()
    for number, image in enumerate(truth["images"]):
        file = work / "images" / image["file_name"]
        if number % LINKS == 0:
            picture = file
            cv2.imwrite(str(picture), np.full((640, 640, 3), 128, np.uint8))
        else:
            os.link(picture, file)
    (work / "task.toml").write_text(TASK)
    make_splits(get_task(str(work / "task.toml")), work / "train.json", [(work / "split", Variant(seed=0))])


def start(work: Path, method: str, launched: float) -> None:
    """In a process of its own: run for two iterations, and print when the first is done."""
    steps = {"imports": time.time() - launched}
    import signal

    from cissod_bench.errors import Stopped
    from cissod_bench.ssod.hooks.progress import ProgressHook
    from cissod_bench.training.job import resolve_job
    from cissod_bench.training.runner import run_job
    from cissod_bench.training.spec import RunSpec

    steps["imports"] = time.time() - launched

    def begun(self: ProgressHook, runner: object) -> None:
        steps["training begins"] = time.time() - launched

    def iterated(self: ProgressHook, *args: object, **kwargs: object) -> None:
        steps["first iteration done"] = time.time() - launched
        os.kill(os.getpid(), signal.SIGTERM)  # heeded after the next iteration, before this is called again

    ProgressHook.before_train = begun  # type: ignore[method-assign]
    ProgressHook.after_train_iter = iterated  # type: ignore[method-assign]
    spec = RunSpec(
        task=str(work / "task.toml"),
        method=method,
        split=work / "split",
        out=work / f"run-{method}",
        data_root=work,
        device="cpu",
        workers=0,
        threads=1,
    )
    job = resolve_job(spec)
    steps["everything checked"] = time.time() - launched
    try:
        run_job(job)
    except Stopped as stopped:
        print(json.dumps(steps))
        print(stopped, file=sys.stderr)


def advance(folder: Path) -> None:
    """Set the newest checkpoint to iteration 100,000."""
    import torch

    (newest,) = folder.glob("iter_*.pth")
    content = torch.load(newest, weights_only=False)
    content["meta"]["iter"] = ITERATION
    torch.save(content, folder / f"iter_{ITERATION}.pth")
    newest.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, help="COCO's instances_train2017.json, or the same packed with xz")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs; data there are used again")
    parser.add_argument("--method", default="gbs")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        start(arguments.work, arguments.method, arguments.child)
        return
    if not arguments.work.exists():
        prepare(arguments.annotations, arguments.work)
    run = arguments.work / f"run-{arguments.method}"
    shutil.rmtree(run, ignore_errors=True)
    for what in ("begun anew", f"resumed at iteration {ITERATION:,}"):
        command = [sys.executable, __file__, "--work", str(arguments.work), "--method", arguments.method]
        done = subprocess.run([*command, "--child", str(time.time())], check=True, stdout=subprocess.PIPE, text=True)
        line = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"{what}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in line.items()), flush=True)
        if what == "begun anew":
            advance(run / "checkpoints")


if __name__ == "__main__":
    main()
