"""Calibration of scores: whether of all detections with a score of 0.7 seven in ten are right, by class group.

A detection is right if it found an object of its class at IoU 0.5, by the evaluator's matching. Detections in ignored
regions do not count. Expected calibration error (Naeini et al., AAAI 2015; for detection Küppers et al., CVPRW 2020,
with scores alone): the mean over equally wide bins of |precision - mean score|, weighted by their detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.evaluation.inputs import Detections, GroundTruth
from cissod_bench.evaluation.matches import match

BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores and precision of the detections of a group of classes, by bins of the score.

    Attributes:
        count: (BINS,) int64, detections; bin b has the scores in [b / BINS, (b + 1) / BINS), the last one 1 as well.
        score: (BINS,) float64, their mean score; NaN for a bin without detections.
        precision: (BINS,) float64, the part of them that is right; NaN likewise.
    """

    count: NDArray[np.int64]
    score: NDArray[np.float64]
    precision: NDArray[np.float64]

    @property
    def error(self) -> float | None:
        """Expected calibration error in [0, 1]; None without detections."""
        if not self.count.any():
            return None
        gaps = np.nan_to_num(np.abs(self.precision - self.score))
        return float((self.count * gaps).sum() / self.count.sum())


def reliability(
    truth: GroundTruth,
    detections: Detections,
    groups: Mapping[str, Sequence[str]],
    *,
    max_detections: int,
    lvis: bool,
) -> dict[str, Reliability]:
    """How reliable the scores are, by group.

    Args:
        truth: annotations.
        detections: scored boxes.
        groups: class names of each group.
        max_detections, lvis: as of `backends.precision_recall`.

    Raises:
        UserError: a score above 1.
    """
    above = np.flatnonzero(detections.scores > 1)
    if len(above):
        raise UserError(
            f"detection {above[0]}: score {detections.scores[above[0]]:g} is above 1, so scores are no probabilities "
            "and have no calibration. Leave out --calibration."
        )
    matches = match(truth, detections, max_detections=max_detections, lvis=lvis)
    counts = ~matches.ignored[0]
    place = np.minimum((matches.score * BINS).astype(np.int64), BINS - 1)
    position = {name: index for index, name in enumerate(truth.class_names)}
    found = {}
    for group, names in groups.items():
        inside = counts & np.isin(matches.kind, [position[name] for name in names])
        count = np.bincount(place[inside], minlength=BINS)
        with np.errstate(invalid="ignore"):
            score = np.bincount(place[inside], matches.score[inside], BINS) / count
            precision = np.bincount(place[inside], matches.matched[0][inside], BINS) / count
        found[group] = Reliability(count, score, precision)
    return found
