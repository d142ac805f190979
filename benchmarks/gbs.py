"""What GbR, GbT and CrS add to a training step, against the same frame without them.

    python benchmarks/gbs.py [--device cuda] [--no-step]

Prints, for each number of classes n, milliseconds of one iteration's RoI classification losses on 2,560 RoIs (512
labelled, 2,048 pseudo-labelled; forward and backward) as plain focal loss and with gradient-based reweighting, of the
thresholds' update, and of class-rebalancing sampling (its share of a transfer every 50 iterations, and of a new
generation over 107,000 unlabelled images every 18,000), and the sum of what is added as a part of a whole training step
of the paper's detector on this device: R50-FPN, 1 + 4 images of 1333 x 800. It also counts what would make the host
wait for a GPU in the parts that run in every iteration (reading a number back, or a shape that depends on the data), of
which there must be none; on a GPU, PyTorch's own check for that is switched on.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode

import cissod_bench.engine.plugins  # noqa: F401  (registers the frame's parts)
from cissod_bench.engine.detectors import SOFT_TEACHER, get_detector
from cissod_bench.engine.generations import FLUSH
from cissod_bench.methods.focal import softmax_focal
from cissod_bench.methods.passes import serving
from cissod_bench.methods.rebalancing import PseudoLabelPool, generation_factors
from cissod_bench.methods.reweighting import GradientReweightedFocalLoss
from cissod_bench.methods.thresholds import ClassThreshold

CLASSES = (80, 365, 1203)
LABELED_ROIS, UNLABELED_ROIS, DETECTIONS = 512, 2048, 400
LABELED_IMAGES, UNLABELED_IMAGES, GENERATION = 10_000, 107_000, 18_000
WAITS = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "bincount")


class Waits(TorchDispatchMode):
    """Counts operators whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        masked = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name.startswith(WAITS) or masked:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def milliseconds(action: Callable[[], object], device: str, repeats: int = 30) -> float:
    """Median time of an action after a warm-up."""
    times = []
    for _ in range(repeats + max(1, repeats // 6)):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[-repeats:])


def measure(num_classes: int, device: str) -> tuple[float, float, float, float, int]:
    """Milliseconds of plain and reweighted losses, thresholds and sampling in an iteration; number of waits added."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for count in (LABELED_ROIS, UNLABELED_ROIS):
        logits = torch.randn(count, num_classes + 1, generator=generator).to(device).requires_grad_()
        labels = torch.randint(num_classes + 1, (count,), generator=generator).to(device)
        batches.append((logits, labels, torch.rand(count, generator=generator).to(device)))
    factors = [batch[2].sum() for batch in batches]
    loss = GradientReweightedFocalLoss(num_classes).to(device)
    threshold = ClassThreshold(num_classes).to(device)
    found = torch.randint(num_classes, (DETECTIONS,), generator=generator).to(device)
    scores = torch.rand(DETECTIONS, generator=generator).to(device)

    def plain() -> None:
        for (logits, labels, weights), factor in zip(batches, factors, strict=True):
            ((softmax_focal(logits, labels, 1.0) * weights).sum() / factor).backward()

    def reweighted() -> None:
        for kind, (logits, labels, weights), factor in zip(("sup", "unsup"), batches, factors, strict=True):
            with serving(loss, kind):  # type: ignore[arg-type]
                loss(logits, labels, weights, avg_factor=factor).backward()
        loss.end_iteration(1)

    def thresholds() -> None:
        threshold.update(found, scores)
        threshold.thresholds(1, loss.weights)

    with Waits() as waits:
        reweighted()
        thresholds()
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")  # any synchronisation raises from here on
        reweighted()
        thresholds()
        torch.cuda.set_sync_debug_mode("default")
    times = (milliseconds(action, device) for action in (plain, reweighted, thresholds))
    return *times, sampling(num_classes, device), len(waits.found)


def sampling(num_classes: int, device: str) -> float:
    """Milliseconds of CrS in an iteration: its part of the transfers and of a new generation."""
    numbers = np.random.default_rng(0)
    pool = PseudoLabelPool(UNLABELED_IMAGES)
    images = 4 * FLUSH
    waiting = torch.rand(5 * images, device=device)

    def flush() -> None:
        margins = waiting.float().cpu().numpy()
        labels = numbers.integers(0, num_classes, len(margins))
        pool.add(numbers.permutation(UNLABELED_IMAGES)[:images], np.full(images, 5), labels, margins)

    for _ in range(GENERATION // FLUSH):
        flush()
    present = numbers.integers(1, LABELED_IMAGES, num_classes)

    def generation() -> None:
        generation_factors(pool, present, LABELED_IMAGES, 0.25)

    return milliseconds(flush, device) / FLUSH + milliseconds(generation, device, 5) / GENERATION


def training_step(device: str, steps: int = 2) -> float:
    """Milliseconds of a Soft Teacher step of the paper's detector, loading and augmentation left out."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type="TeacherStudent",
            detector=get_detector("r50-fpn").model(80, 100),
            threshold={"type": "FixedThreshold", "value": 0.9},
            semi_train_cfg=dict(SOFT_TEACHER),
            semi_test_cfg={"predict_on": "teacher"},
        )
    )
    model.to(device).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    meta = {"img_shape": (800, 1333), "ori_shape": (800, 1333), "batch_input_shape": (800, 1344)}
    meta |= {"pad_shape": (800, 1344), "scale_factor": (1.0, 1.0), "homography_matrix": np.eye(3, dtype=np.float32)}

    def branch(images: int) -> tuple[torch.Tensor, list[DetDataSample]]:
        samples = [DetDataSample(metainfo=meta) for _ in range(images)]
        for sample in samples:
            corners = 600 * torch.rand(7, 2)
            boxes = torch.cat([corners, corners + 20 + 150 * torch.rand(7, 2)], dim=1)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(80, (7,))).to(device)
        return torch.randn(images, 3, 800, 1344, device=device), samples

    branches = {"sup": branch(1), "unsup_teacher": branch(4), "unsup_student": branch(4)}
    inputs, samples = ({name: both[which] for name, both in branches.items()} for which in (0, 1))

    def step() -> None:
        losses = model.loss(inputs, samples)
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return milliseconds(step, device, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-step", action="store_true", help="leave out the whole step, minutes on a CPU")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    step = None if arguments.no_step else training_step(arguments.device)
    if step is not None:
        print(f"a training step of R50-FPN on {arguments.device}: {step:,.0f} ms")
    print("| n | focal ms | GbR ms | GbT ms | CrS ms | added ms | of a step | waits for the device |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for num_classes in CLASSES:
        plain, reweighted, thresholds, crs, waits = measure(num_classes, arguments.device)
        added = reweighted - plain + thresholds + crs
        share = f"{100 * added / step:.2f} %" if step else ""
        print(
            f"| {num_classes} | {plain:.2f} | {reweighted:.2f} | {thresholds:.2f} | {crs:.2f} | {added:.2f} | {share} "
            f"| {waits} |"
        )


if __name__ == "__main__":
    main()
