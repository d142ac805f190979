"""What GbR and GbT add to a step, against the same focal loss without them.

    python benchmarks/gbs.py [--device cuda] [--step-seconds S]

Prints, for each number of classes, milliseconds of one iteration's losses (labelled and pseudo-labelled RoIs, forward
and backward) with and without gradient-based reweighting, of the thresholds' update, and the sum of both as a part of a
whole training step of S seconds. On a GPU it also counts synchronisations with the host, of which there must be none.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from cissod_bench.methods.focal import softmax_focal
from cissod_bench.methods.passes import serving
from cissod_bench.methods.reweighting import GradientReweightedFocalLoss
from cissod_bench.methods.thresholds import ClassThreshold

LABELED_ROIS, UNLABELED_ROIS, DETECTIONS = 512, 2048, 400


def milliseconds(action: Callable[[], object], device: str, repeats: int = 30) -> float:
    """Median time of an action after a warm-up."""
    times = []
    for index in range(repeats + 5):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        if index >= 5:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def measure(num_classes: int, device: str) -> tuple[float, float, float]:
    """Milliseconds of the plain losses, the reweighted losses with their update, and the thresholds."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for count in (LABELED_ROIS, UNLABELED_ROIS):
        logits = torch.randn(count, num_classes + 1, generator=generator).to(device).requires_grad_()
        labels = torch.randint(num_classes + 1, (count,), generator=generator).to(device)
        batches.append((logits, labels, torch.rand(count, generator=generator).to(device)))
    loss = GradientReweightedFocalLoss(num_classes).to(device)
    threshold = ClassThreshold(num_classes).to(device)
    found = torch.randint(num_classes, (DETECTIONS,), generator=generator).to(device)
    scores = torch.rand(DETECTIONS, generator=generator).to(device)

    def plain() -> None:
        for logits, labels, weights in batches:
            (softmax_focal(logits, labels, 1.0) * weights).sum().div(len(labels)).backward()

    def reweighted() -> None:
        for kind, (logits, labels, weights) in zip(("sup", "unsup"), batches, strict=True):
            with serving(loss, kind):  # type: ignore[arg-type]
                loss(logits, labels, weights, avg_factor=float(len(labels))).backward()
        loss.end_iteration(1)

    def thresholds() -> None:
        threshold.update(found, scores)
        threshold.thresholds(1, loss.weights)

    if device == "cuda":
        plain(), reweighted(), thresholds()
        torch.cuda.set_sync_debug_mode("error")  # any synchronisation raises from here on
        reweighted(), thresholds()
        torch.cuda.set_sync_debug_mode("default")
        print("no host synchronisation in the losses and thresholds")
    return milliseconds(plain, device), milliseconds(reweighted, device), milliseconds(thresholds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--step-seconds", type=float, help="whole training step, for the ratio")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{'classes':>8} {'focal ms':>9} {'GbR ms':>9} {'GbT ms':>9} {'added ms':>9}"
        + "  of a step" * bool(arguments.step_seconds)
    )
    for num_classes in (80, 365, 1203):
        plain, reweighted, thresholds = measure(num_classes, arguments.device)
        added = reweighted - plain + thresholds
        share = f"  {added / 10 / arguments.step_seconds:.2f} %" if arguments.step_seconds else ""
        print(f"{num_classes:8d} {plain:9.2f} {reweighted:9.2f} {thresholds:9.2f} {added:9.2f}{share}")


if __name__ == "__main__":
    main()
