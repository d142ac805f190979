"""What a training step of each method costs, against Soft Teacher.

    python benchmarks/methods.py [--device cuda] [--rounds N] [METHOD ...]

Every method of the registry (or those named, method files too) takes real steps in one process: forward and backward of
both passes, optimiser, moving teacher, on the same batches out of the run's own loader, in turns, so that whatever else
the machine does hits all alike. Printed are the median step, the median over rounds of its ratio to Soft Teacher's step
with the middle half of the ratios, and the peak memory of a step: parameters, gradients, optimiser state and buffers of
the method itself plus what the step allocates on top.

On a GPU it is the paper's detector on images of 800 x 1,333 with 80 classes; on a CPU the small detector on 128 x 128
with 12. Warm-ups are over, each image has ten pseudo boxes. Not in a step, and so not in the table: loading of images,
and what hooks do at intervals or at the ends of generations and stages.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from cissod_bench.methods.registry import METHODS
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.ssod.precision import products_in
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job, resolve_job
from cissod_bench.training.recipes import detectors
from cissod_bench.training.spec import RunSpec

REFERENCE = "soft-teacher"
GPU_PRESET, CPU_PRESET = "r50-fpn-torchvision", "r18-small"
ITERATIONS = 180_000
PSEUDO_BOXES = 10
TASK = """
name = "benchmark"
version = 1
[data]
train_annotations = "train.json"
train_images = "images"
val_annotations = "train.json"
val_images = "images"
[groups]
minority = ["class 0"]
[labeled]
fraction = 0.5
floor = 1
[training]
iterations = 180000
"""
Step = Callable[[int], None]


def write_data(folder: Path, num_classes: int, size: tuple[int, int], images: int = 24) -> None:
    """Images of noise with eight boxes each, their annotations, a task file and a split."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    annotations: list[dict[str, Any]] = []
    for image in range(images):
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"images/{image}.png")
        for _ in range(8):
            corner = generator.uniform(0, 0.6, 2) * size[::-1]
            extent = generator.uniform(0.1, 0.4, 2) * size[::-1]
            label = int(generator.integers(1, num_classes)) if image else 0
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0,
                 "bbox": [*corner.tolist(), *extent.tolist()], "area": float(extent.prod())}
            )  # fmt: skip
    listed = [{"id": k, "file_name": f"{k}.png", "height": size[0], "width": size[1]} for k in range(images)]
    categories = [{"id": label, "name": f"class {label}"} for label in range(num_classes)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "task.toml").write_text(TASK)
    make_splits(get_task(str(folder / "task.toml")), folder / "train.json", [(folder / "split", Variant())])


def busy(preset: detectors.Detector) -> detectors.Detector:
    """The preset with some pseudo boxes in every image, whatever an untrained teacher thinks of it."""

    def model(num_classes: int, max_detections: int) -> dict[str, Any]:
        config = preset.model(num_classes, PSEUDO_BOXES)
        config["test_cfg"]["rcnn"]["score_thr"] = 0.0
        if config["backbone"]["norm_cfg"]["type"] == "BN":
            # By its other name: without a file of weights a run has group normalisation instead, which nobody trains.
            config["backbone"]["norm_cfg"] = {"type": "BN2d", "requires_grad": False}
        return config

    semi = {**preset.semi, "pseudo_label_initial_score_thr": -1.0}
    return dataclasses.replace(preset, name="busy", model=model, semi=semi, burn_in=0.0)


def resolve(folder: Path, method: str, device: str, precision: str) -> Job:
    """The job of a method at the paper's length."""
    spec = RunSpec(
        task=str(folder / "task.toml"), method=method, split=folder / "split", out=folder / f"run-{Path(method).stem}",
        data_root=folder, detector="busy", iterations=ITERATIONS, workers=0, threads=1, device=device,
        precision=precision,
    )  # fmt: skip
    return resolve_job(spec, look_for_images=False)  # they are validated on too


def stepper(job: Job, batches: list[Any]) -> tuple[Step, Callable[[], int]]:
    """A training step of a method on one of the batches, and the bytes that the method itself keeps."""
    config = build_config(job)
    config.model.pop("method_file", None)  # has been imported; the copy is the run's
    model = MODELS.build(config.model)
    model.init_weights()
    model.teacher.load_state_dict(model.student.state_dict())
    model = model.to(job.device).train()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    if not job.method_config.unlabeled:
        batches = [{key: {"sup": branches["sup"]} for key, branches in batch.items()} for batch in batches]

    def step(number: int) -> None:
        torch.manual_seed(number)
        model.iteration = ITERATIONS // 2 + number
        model.train_step(batches[number % len(batches)], wrapper)
        with torch.no_grad():
            torch._foreach_lerp_(list(model.teacher.parameters()), list(model.student.parameters()), 0.001)

    def kept() -> int:
        states = [value for state in wrapper.optimizer.state.values() for value in state.values()]
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), *states]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if torch.is_tensor(t)}
        return sum(storages.values())

    return step, kept


def seconds(step: Step, number: int, device: str) -> float:
    """Duration of a step."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step(number)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def allocated_on_top(step: Step, number: int, device: str, folder: Path) -> int:
    """Largest number of bytes that a step holds beyond what was allocated before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(number)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(number)
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = np.cumsum([change for _, change in changes])
    return int(held.max(initial=0))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="names or method files; default: the registry")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="steps of each method; default: 40 on a GPU, 15 on a CPU")
    parser.add_argument("--classes", type=int, help="number of classes; default: 80 on a GPU, 12 on a CPU")
    parser.add_argument("--precision", default="tf32", help="fp32, tf32, bf16 or fp16")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, tuple[list[float], int]]:
    """For each method seconds of its steps, in the same rounds, and the bytes that it needs."""
    on_gpu = given.device == "cuda"
    preset, size = (GPU_PRESET, (800, 1333)) if on_gpu else (CPU_PRESET, (128, 128))
    classes, rounds = given.classes or (80 if on_gpu else 12), given.rounds or (40 if on_gpu else 15)
    detectors.DETECTORS["busy"] = busy(detectors.get_detector(preset))
    names = list(dict.fromkeys([REFERENCE, *(given.methods or METHODS)]))
    with tempfile.TemporaryDirectory(prefix="cissod-bench-") as temporary, products_in(given.precision):
        folder = Path(temporary)
        write_data(folder, classes, size)
        with contextlib.redirect_stdout(io.StringIO()):
            jobs = {name: resolve(folder, name, given.device, given.precision) for name in names}
            loader = iter(Runner.build_dataloader(build_config(jobs[REFERENCE]).train_dataloader))
            batches = [next(loader) for _ in range(4)]
            steppers = {name: stepper(job, batches) for name, job in jobs.items()}
        for number in range(3):  # of warm-up
            for step, _ in steppers.values():
                step(number)
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names if number % 2 else reversed(names):
                times[name].append(seconds(steppers[name][0], number, given.device))
        peaks = {
            name: kept() + allocated_on_top(step, rounds, given.device, folder)
            for name, (step, kept) in steppers.items()
        }
    return {Path(name).stem: (times[name], peaks[name]) for name in names}


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    init_default_scope("mmdet")
    found = measure(given)
    on_gpu = given.device == "cuda"
    preset = detectors.get_detector(GPU_PRESET if on_gpu else CPU_PRESET)
    hardware = torch.cuda.get_device_name() if on_gpu else f"CPU, {given.threads} threads"
    images = f"{preset.per_gpu[0]} + {preset.per_gpu[1]} images"
    print(f"{preset.name}, {images}, {given.precision}; {hardware}; {len(found[REFERENCE][0])} rounds\n")
    print("| method | ms a step | times Soft Teacher | middle half | peak MiB | times Soft Teacher |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, (times, peak) in found.items():
        print(table_row(name, times, found[REFERENCE][0], peak, found[REFERENCE][1]))


def table_row(name: str, mine: list[float], reference: list[float], peak: int, reference_peak: int) -> str:
    """A method's row: seconds of its steps and of Soft Teacher's in the same rounds, and the bytes of both."""
    ratios = [one / other for one, other in zip(mine, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    cells = [f"`{name}`", f"{1000 * statistics.median(mine):.1f}", f"{middle:.3f}", f"{low:.3f} – {high:.3f}"]
    return f"| {' | '.join([*cells, f'{peak / 2**20:.1f}', f'{peak / reference_peak:.3f}'])} |"


if __name__ == "__main__":
    main()
