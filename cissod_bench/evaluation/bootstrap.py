"""Spread over images: how much an AP, or the difference of two, would vary with other images of the same kind.

A bootstrap sample contains as many images as the set, sampled with replacement, so that an image counts 0, 1, 2, ...
times. AP on it is AP with weights and needs no new matching, since matches never cross images. All runs use the same
samples, so that differences are paired.

The interval is the estimate -/+ 1.96 standard deviations of the bootstrap values. Percentiles of these values would be
wrong: repeated images bias AP upwards, above all for classes with few objects, by about two standard deviations for
sets of thousands of images. The deviations and paired differences are not biased (`tests/evaluation` measures the
coverage).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.evaluation.matches import Matches

RECALLS = np.linspace(0.0, 1.0, 101)
NORMAL_95 = 1.959963984540054
LEAST_SAMPLES = 10
"""Fewer samples have no standard deviation, or one that is chance itself."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the standard deviation over samples of images and its 95 % interval."""

    value: float
    std: float

    @property
    def half(self) -> float:
        """Half its width."""
        return self.high - self.value

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - NORMAL_95 * self.std

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + NORMAL_95 * self.std

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: for a difference, whether it is more than chance."""
        return self.low > 0 or self.high < 0


class WeightedAP:
    """AP per class of a run, for any weights of its images.

    Nearly all detections match nothing at any threshold. They are false positives everywhere and need a single running
    sum for all thresholds; only the others are treated one threshold at a time.
    """

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        special = (matches.matched | matches.ignored).any(axis=0)
        self.plain = ~special
        self.at = np.flatnonzero(special)
        self.image, self.kind = matches.image[self.at], matches.kind[self.at]
        counts = ~matches.ignored[:, self.at]
        self.true = matches.matched[:, self.at] & counts
        self.false = ~matches.matched[:, self.at] & counts
        # Where each class begins, among all detections and among the special ones.
        self.begin = np.searchsorted(matches.kind, self.kind, side="left")
        self.special_begin = np.searchsorted(self.kind, self.kind, side="left")

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AP (IoU 0.50:0.95, 101 recall levels) with image weights.

        Args:
            weights: (I,) float64, how often each image counts.

        Returns:
            (K,) float64, NaN for a class without objects of positive weight. With weights of one: COCO's AP.
        """
        matches = self.matches
        wanted = np.bincount(matches.truth_kind, weights[matches.truth_image], matches.classes)
        plain = _running(np.where(self.plain, weights[matches.image], 0.0))
        false_everywhere = plain[self.at] - plain[self.begin]
        special = weights[self.image]
        best = np.zeros((len(self.true), matches.classes * len(RECALLS)))
        wanted_here = np.maximum(wanted[self.kind], 1e-300)
        for row, true, false in zip(best, self.true, self.false, strict=True):
            found = self._within_class(np.where(true, special, 0.0))
            wrong = self._within_class(np.where(false, special, 0.0)) + false_everywhere
            precision = found / (found + wrong + np.spacing(1))
            # The highest recall level that this detection reaches; the best precision at it or above counts.
            level = np.searchsorted(RECALLS, np.minimum(found / wanted_here, 1.0), side="right") - 1
            cell = self.kind * len(RECALLS) + level  # ascending
            if len(cell):
                starts = np.flatnonzero(np.diff(cell, prepend=-1))
                row[cell[starts]] = np.maximum.reduceat(precision, starts)
        curves = best.reshape(len(self.true), matches.classes, len(RECALLS))
        envelope = np.maximum.accumulate(curves[:, :, ::-1], axis=2)
        return np.where(wanted > 0, envelope.mean(axis=(0, 2)), np.nan)

    def _within_class(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Running sum over the special detections of a class, the detection itself included."""
        total = _running(values)
        return total[1:] - total[self.special_begin]


def check_samples(count: int) -> None:
    """Refuse numbers of samples that say nothing of a spread.

    Raises:
        UserError: fewer than `LEAST_SAMPLES`.
    """
    if count < LEAST_SAMPLES:
        raise UserError(f"{count} bootstrap samples say nothing of a spread: take {LEAST_SAMPLES} or more.")


def image_samples(images: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """(count, images) int64: how often each image occurs in each sample; the same for the same arguments."""
    rng = np.random.default_rng([seed, images])
    return rng.multinomial(images, np.full(images, 1 / images), size=count)


def bootstrap_ap(matches: Matches, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP per class of a run on each sample, (samples, K) float64, NaN where a sample lacks a class."""
    weighted = WeightedAP(matches)
    return np.stack([weighted(sample.astype(np.float64)) for sample in samples])


def group_interval(
    estimate: NDArray[np.float64], sampled: NDArray[np.float64], members: Sequence[int]
) -> Interval | None:
    """Interval of a group's mean AP, None where no class of it has objects.

    For the difference of two runs pass differences: `estimate` (K,) and `sampled` (B, K) of one minus the other.

    Args:
        estimate: (K,) value per class on the images as they are.
        sampled: (B, K) values on B samples.
        members: positions of the group's classes.
    """
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(estimate[list(members)])
        if not known.any():
            return None
        kept = np.array(members)[known]
        values = sampled[:, kept]
        present = ~np.isnan(values)
        sizes = present.sum(axis=1)
        means = np.where(present, values, 0.0).sum(axis=1)[sizes > 0] / sizes[sizes > 0]
    return Interval(float(estimate[kept].mean()), float(means.std(ddof=1)))


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D + 1,): the sum of all values in front of each position."""
    total = np.zeros(len(values) + 1)
    np.cumsum(values, out=total[1:])
    return total
