"""RoI batches for the tests of classification losses, and how they are fed to a loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cissod_bench.ssod.branch import Branch, branch


@dataclass
class Rois:
    """One call of a loss: its pass, (R, C) logits, (R,) labels and (R,) label weights."""

    name: Branch
    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    @property
    def avg_factor(self) -> float:
        """The framework's: number of RoIs that count (labelled), sum of weights (pseudo-labelled)."""
        return max(float((self.weights > 0).sum() if self.name == "sup" else self.weights.sum()), 1.0)


def rois(seed: int, name: Branch, num_classes: int, channels: int, size: int = 24, present: Any = None) -> Rois:
    """Random RoIs, half of them background; `present` are the foreground classes that occur."""
    generator = np.random.default_rng(seed)
    present = np.arange(num_classes) if present is None else np.asarray(present, dtype=np.int64)
    labels = np.full(size, num_classes)
    if len(present):
        labels[: size // 2] = generator.choice(present, size // 2)
    weights = np.ones(size)
    if name == "unsup":
        weights = np.where(labels == num_classes, generator.uniform(0, 1, size), 1.0)
    logits = generator.normal(0, 2, (size, channels)).astype(np.float32).astype(np.float64)
    return Rois(name, logits, labels, weights.astype(np.float32).astype(np.float64))


def steps(num_classes: int, channels: int) -> list[list[Rois]]:
    """Five iterations of both passes: a class that never occurs, one that comes late, batches of background alone."""
    common = np.arange(num_classes - 2)
    late = np.arange(num_classes - 1)
    return [
        [rois(1, "sup", num_classes, channels, present=common), rois(2, "unsup", num_classes, channels, present=[0])],
        [rois(3, "sup", num_classes, channels, present=common), rois(4, "unsup", num_classes, channels, present=[])],
        [rois(5, "sup", num_classes, channels, present=late), rois(6, "unsup", num_classes, channels, present=late)],
        [rois(7, "sup", num_classes, channels, present=[]), rois(8, "unsup", num_classes, channels, present=[])],
        [rois(9, "sup", num_classes, channels, present=late), rois(10, "unsup", num_classes, channels, present=late)],
    ]


def feed(loss: nn.Module, batch: Rois, serve: bool = True, **changes: Any) -> tuple[Tensor, np.ndarray]:
    """Value and gradient of one call, as the framework makes it."""
    logits = torch.tensor(batch.logits, dtype=torch.float32, requires_grad=True)
    arguments = {"avg_factor": batch.avg_factor, "reduction_override": None} | changes
    with branch(loss, batch.name if serve else "off"):
        value = loss(logits, torch.tensor(batch.labels), torch.tensor(batch.weights, dtype=torch.float32), **arguments)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient.numpy().astype(np.float64)
