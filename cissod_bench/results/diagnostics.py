"""What a method logged about itself: class weights, thresholds, gradient ratios, quality of pseudo labels.

A run's `observables.jsonl` holds one JSON object an interval: `step`, lists of one number a class (label order) under
`weights`, `thresholds`, `gradient_ratio`, `class_factors` and `copies`, and `pseudo_labels` with the counts `right`,
`given` and `annotated`. A list may end with a number of the background class, which is left out here.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.results.curves import LARGEST_VALUE, Curve, log_lines

OBSERVABLES = "observables.jsonl"
PER_CLASS = ("weights", "thresholds", "gradient_ratio", "class_factors", "copies")
COUNTS = ("right", "given", "annotated")
LATE = 1 / 3
"""Part of the run, at its end, over which the quality of pseudo labels is summed up (Fig. 3)."""
WINDOWS = 20
"""Parts of a run over which the curves of pseudo labels sum up: of rare classes an interval has hardly any."""


@dataclass(frozen=True, eq=False)
class Observables:
    """S intervals of one run with C classes.

    Attributes:
        steps: (S,) int64, iteration at the end of each interval.
        values: name -> (S, C) float64, NaN where a value was not logged.
        counts: (S, 3, C) float64: right, given and annotated pseudo labels; None where they were not logged.
    """

    steps: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    counts: NDArray[np.float64] | None


def read_observables(folder: Path, classes: int) -> Observables | None:
    """Read a run's log, in the order of steps; where a step comes twice, the later line counts.

    None where there is none. Lines of other classes are left out.

    Args:
        folder: run folder.
        classes: number of classes C.

    Raises:
        UserError: the log is damaged.
    """
    path = folder / OBSERVABLES
    if not os.path.lexists(path):
        return None
    by_step = {row["step"]: _checked(path, row) for row in log_lines(path)}
    rows = [by_step[step] for step in sorted(by_step)]
    rows = [row for row in rows if all(len(values) in (classes, classes + 1) for values in row.lists.values())]
    if not rows:
        return None
    missing = [None] * classes
    values = {
        name: np.array([row.lists.get(name, missing)[:classes] for row in rows], dtype=np.float64)
        for name in PER_CLASS
        if any(name in row.lists for row in rows)
    }
    counted = any("given" in row.lists for row in rows)
    counts = np.array(
        [[row.lists.get(name, [0] * classes)[:classes] for name in COUNTS] for row in rows], dtype=np.float64
    )
    return Observables(np.array([row.step for row in rows]), values, counts if counted else None)


def group_curve(observed: Observables, name: str, members: Sequence[int]) -> Curve:
    """Mean of a logged value over the classes of a group, at the steps where any of them has one."""
    values = observed.values[name][:, list(members)]
    known = ~np.isnan(values)
    kept = known.any(axis=1)
    means = np.where(known, values, 0.0).sum(axis=1)[kept] / known.sum(axis=1)[kept]
    return observed.steps[kept].tolist(), means.tolist()


def last_part(observed: Observables) -> Observables:
    """The intervals of the last third of a run."""
    late = observed.steps > (1 - LATE) * observed.steps[-1]
    values = {name: each[late] for name, each in observed.values.items()}
    return Observables(observed.steps[late], values, None if observed.counts is None else observed.counts[late])


def pseudo_label_quality(observed: Observables) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Precision and recall of pseudo labels per class over the last third of the run, (C,) each, NaN without any.

    None where the counts were not logged.
    """
    late = last_part(observed)
    if late.counts is None:
        return None
    right, given, annotated = late.counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return right / given, right / annotated


def pseudo_label_curves(observed: Observables, members: Sequence[int]) -> tuple[Curve, Curve]:
    """Precision and recall of all pseudo labels of a group over a run, one point for each of its `WINDOWS` parts.

    A part has a precision if pseudo labels of the group were given in it, and a recall if its objects were counted.

    Args:
        observed: what a run logged.
        members: labels of the group's classes.
    """
    precision: Curve = ([], [])
    recall: Curve = ([], [])
    if observed.counts is None:
        return precision, recall
    parts = -(-observed.steps * WINDOWS // observed.steps[-1])
    for part in np.unique(parts):
        within = parts == part
        right, given, annotated = observed.counts[within][:, :, list(members)].sum(axis=(0, 2)).tolist()
        for (steps, values), whole in ((precision, given), (recall, annotated)):
            if whole:
                steps.append(int(observed.steps[within][-1]))
                values.append(right / whole)
    return precision, recall


class _Line(NamedTuple):
    step: int
    lists: dict[str, list[float | None]]


def _checked(path: Path, row: dict[str, Any]) -> _Line:
    """The lists of a line, which hold finite numbers or None; counts are not negative.

    Raises:
        UserError: they hold something else.
    """
    if row["step"] < 1:
        raise UserError(f"{path}: an interval ends at step {row['step']}, before the first one.")
    counts = row.get("pseudo_labels", {})
    if not isinstance(counts, dict) or not set(counts) <= set(COUNTS):
        raise UserError(f"{path}: `pseudo_labels` of step {row['step']} are not {', '.join(COUNTS)}.")
    lists = {name: row[name] for name in PER_CLASS if name in row} | counts
    for name, values in lists.items():
        least = 0.0 if name in COUNTS else -math.inf
        if not isinstance(values, list) or not all(_is_number(value, least, name not in COUNTS) for value in values):
            raise UserError(f"{path}: `{name}` of step {row['step']} is not a list of numbers.")
    return _Line(row["step"], lists)


def _is_number(value: Any, least: float, may_lack: bool) -> bool:
    if value is None:
        return may_lack
    return type(value) in (int, float) and abs(value) <= LARGEST_VALUE and value >= least
