"""What GbR, GbT and CrS add to a training step, against the same framework without them.

    python benchmarks/gbs.py [--device cuda] [--no-step]

Prints, for each number of classes n, milliseconds of one iteration's RoI classification losses on 2,560 RoIs (512
labelled, 2,048 pseudo-labelled; forward and backward) as plain focal loss and with gradient-based reweighting, of the
thresholds' update, and of class-rebalancing sampling (its share of a transfer every 50 iterations, and of a new
generation over 107,000 unlabelled images every 18,000), and the sum of what is added as a part of a whole training step
of the paper's detector on this device: R50-FPN, 1 + 4 images of 1333 x 800, as in `training.py`. It also counts, on a
fake device (`cissod_bench/ssod/fake_device.py`), what would make the host wait for a GPU in the parts that run in
every iteration, of which there must be none; on a GPU, PyTorch's own check for that is switched on.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_parts.clock import milliseconds
from mmengine.registry import init_default_scope
from steps import Variant, batch, build

from cissod_bench.methods.gbs.crs import PseudoLabelPool, generation_factors
from cissod_bench.methods.gbs.crs_hook import FLUSH
from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.methods.gbs.gbt import ClassThreshold
from cissod_bench.methods.softmax_focal import softmax_focal
from cissod_bench.ssod import fake_device
from cissod_bench.ssod.branch import branch
from cissod_bench.training.recipes.detectors import SOFT_TEACHER

CLASSES = (80, 365, 1203)
LABELED_ROIS, UNLABELED_ROIS, DETECTIONS = 512, 2048, 400
LABELED_IMAGES, UNLABELED_IMAGES, GENERATION = 10_000, 107_000, 18_000
Batches = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
Prepare = Callable[[Any], Any]
Action = Callable[[], None]


def rois(num_classes: int) -> Batches:
    """Logits, labels and label weights of the labelled and the pseudo-labelled RoIs of an iteration."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(count, num_classes + 1, generator=generator),
            torch.randint(num_classes + 1, (count,), generator=generator),
            torch.rand(count, generator=generator),
        )
        for count in (LABELED_ROIS, UNLABELED_ROIS)
    ]


def parts(num_classes: int, prepare: Prepare) -> tuple[Action, Action, Action]:
    """The plain losses, the reweighted losses and the thresholds of an iteration, as actions.

    Args:
        num_classes: number of foreground classes n.
        prepare: puts a tensor or a module on the device.
    """
    batches = [
        (prepare(logits).requires_grad_(), prepare(label), prepare(weight))
        for logits, label, weight in rois(num_classes)
    ]
    factors = [weight.sum() for _, _, weight in batches]
    loss = prepare(GradientReweightedFocalLoss(num_classes))
    threshold = prepare(ClassThreshold(num_classes))
    found, scores = prepare(torch.arange(DETECTIONS) % num_classes), prepare(torch.rand(DETECTIONS))

    def plain() -> None:
        for (logits, labels, weights), factor in zip(batches, factors, strict=True):
            ((softmax_focal(logits, labels, 1.0) * weights).sum() / factor).backward()

    def reweighted() -> None:
        for kind, (logits, labels, weights), factor in zip(("sup", "unsup"), batches, factors, strict=True):
            with branch(loss, kind):  # type: ignore[arg-type]
                loss(logits, labels, weights, avg_factor=factor).backward()
        loss.end_iteration(1)

    def thresholds() -> None:
        threshold.update(found, scores)
        threshold.thresholds(1, loss.weights)

    return plain, reweighted, thresholds


def waits(num_classes: int) -> int:
    """What the host would wait for in the losses and thresholds of an iteration on a GPU."""

    def prepare(thing: Any) -> Any:
        if isinstance(thing, torch.nn.Module):
            fake_device.move(thing)
            return thing
        return fake_device.FakeTensor(thing)

    with fake_device.counting() as counted:
        _, reweighted, thresholds = parts(num_classes, prepare)
        counted.waits.clear()
        reweighted()
        thresholds()
        return counted.waits.total()


def measure(num_classes: int, device: str) -> tuple[float, float, float, float]:
    """Milliseconds of plain and reweighted losses, thresholds and sampling in an iteration."""
    plain, reweighted, thresholds = parts(num_classes, lambda thing: thing.to(device))
    if device == "cuda":
        reweighted()
        thresholds()
        torch.cuda.set_sync_debug_mode("error")  # any synchronisation raises from here on
        reweighted()
        thresholds()
        torch.cuda.set_sync_debug_mode("default")
    times = (milliseconds(action, device) for action in (plain, reweighted, thresholds))
    return *times, sampling(num_classes, device)


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


def training_step(device: str, precision: str, steps: int = 5) -> float:
    """Milliseconds of the framework's step with the paper's detector, at Soft Teacher's thresholds."""
    init_default_scope("mmdet")
    torch.manual_seed(0)
    thresholds = {name: SOFT_TEACHER[name] for name in ("pseudo_label_initial_score_thr", "rpn_pseudo_thr")}
    model = build("TeacherStudent", "r50-fpn", thresholds)
    model.init_weights()
    state = model.state_dict()
    variant = Variant("framework", "TeacherStudent", "r50-fpn", state, thresholds, device, precision=precision)
    example = batch(0, 1333, 800)
    return milliseconds(lambda: variant.step(example), device, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", help="of the whole step; default: bf16 on a GPU, else fp32")
    parser.add_argument("--no-step", action="store_true", help="leave out the whole step, minutes on a CPU")
    parser.add_argument("--waits", action="store_true", help="print the numbers of waits alone")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.waits:
        print(*(waits(num_classes) for num_classes in CLASSES))
        return
    # A process of its own: after a fake device has been made, PyTorch pins no memory for a real one.
    counted = subprocess.run([sys.executable, __file__, "--waits"], check=True, capture_output=True, text=True)
    waiting = counted.stdout.split()[-len(CLASSES) :]
    precision = arguments.precision or ("bf16" if arguments.device == "cuda" else "fp32")
    step = None if arguments.no_step else training_step(arguments.device, precision)
    if step is not None:
        print(f"a training step of R50-FPN on {arguments.device}, {precision}: {step:,.0f} ms")
    print("| n | focal ms | GbR ms | GbT ms | CrS ms | added ms | of a step | waits for the device |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for num_classes, number in zip(CLASSES, waiting, strict=True):
        plain, reweighted, thresholds, crs = measure(num_classes, arguments.device)
        added = reweighted - plain + thresholds + crs
        share = f"{100 * added / step:.2f} %" if step else ""
        print(
            f"| {num_classes} | {plain:.2f} | {reweighted:.2f} | {thresholds:.2f} | {crs:.2f} | {added:.2f} | {share} "
            f"| {number} |"
        )


if __name__ == "__main__":
    main()
