"""The difference of two runs: per group and per class, with a paired bootstrap over the validation images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.evaluation.bootstrap import Interval, check_samples, group_interval, image_samples
from cissod_bench.leaderboard.intervals import Progress, ground_truth, group_members, weighted_ap
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.results.record import RESULT_FILE, Result, load_result
from cissod_bench.results.run_key import comparison_fields


@dataclass(frozen=True)
class Comparison:
    """Run B minus run A.

    Attributes:
        names: of the two runs.
        groups: group -> (A, B, B - A), each with its interval over images; None without ground truth.
        classes: class name -> the same.
    """

    names: tuple[str, str]
    groups: dict[str, tuple[Interval, Interval, Interval] | None]
    classes: dict[str, tuple[Interval, Interval, Interval] | None]


def compare_runs(
    first: Path,
    second: Path,
    *,
    annotations: Path | None = None,
    samples: int = 1000,
    seed: int = 0,
    progress: Progress = iter,
) -> Comparison:
    """Compare two run folders on the same validation images.

    Args:
        first, second: run folders A and B.
        annotations: ground truth; default: the file that the record of A names.
        samples: bootstrap samples.
        seed: of the samples.
        progress: wraps the loop over samples.

    Raises:
        UserError: the runs are not comparable (the message names the fields); a record, the detections or the ground
            truth is missing; or the ground truth is not the one that the runs were scored against.
    """
    check_samples(samples)
    records = [load_result(folder / RESULT_FILE) for folder in (first, second)]
    _check_comparable(first, second, records)
    truth = ground_truth(records[0], first, annotations)
    weighted = [weighted_ap(folder, record, truth) for folder, record in zip((first, second), records, strict=True)]
    estimates = [ap(np.ones(len(truth.image_ids))) for ap in weighted]
    resampled: list[list[NDArray[np.float64]]] = [[], []]
    for sample in progress(image_samples(len(truth.image_ids), samples, seed)):
        for run, ap in zip(resampled, weighted, strict=True):
            run.append(ap(sample.astype(np.float64)))
    sampled = [np.stack(run) for run in resampled]
    groups = group_members(records[0], first, truth)

    def three(members: list[int]) -> tuple[Interval, Interval, Interval] | None:
        found = [group_interval(one, many, members) for one, many in zip(estimates, sampled, strict=True)]
        difference = group_interval(estimates[1] - estimates[0], sampled[1] - sampled[0], members)
        if found[0] is None or found[1] is None or difference is None:
            return None
        return found[0], found[1], difference

    return Comparison(
        names=(str(first), str(second)),
        groups={group: three(members) for group, members in groups.items()},
        classes={name: three([position]) for position, name in enumerate(truth.class_names)},
    )


def comparison_table(comparison: Comparison, *, classes: bool = False) -> Table:
    """Groups, or classes by descending difference: both APs, the difference and its 95 % interval, in percent."""
    rows = comparison.classes if classes else comparison.groups
    known = [(name, found) for name, found in rows.items() if found is not None]
    if classes:
        known.sort(key=lambda row: (-row[1][2].value, row[0]))
    columns = (
        Column("name", "Class" if classes else "Group"),
        Column("a", "AP", "A", "reference"),
        Column("b", "AP", "B", "reference"),
        Column("difference", "B - A", "", "difference"),
        Column("low", "low", "95 % interval", "difference"),
        Column("high", "high", "95 % interval", "difference"),
        Column("significant", "", kind="flag"),
    )
    cells = tuple(
        (
            Cell(name),
            Cell(one.value),
            Cell(two.value),
            *(Cell(value) for value in (difference.value, difference.low, difference.high)),
            Cell(bool(difference.excludes_zero)),
        )
        for name, (one, two, difference) in known
    )
    missing = len(rows) - len(known)
    notes = [f"A: {comparison.names[0]}", f"B: {comparison.names[1]}", "* the interval excludes zero."]
    if missing:
        notes.append(f"{missing} without ground truth are left out.")
    caption = "AP in percent. Intervals: paired bootstrap over the validation images; no spread over training seeds."
    title = "Classes" if classes else "Groups"
    return Table(title.lower(), title, caption, columns, cells, ranked=0, notes=tuple(notes))


def _check_comparable(first: Path, second: Path, records: list[Result]) -> None:
    one, two = (comparison_fields(record.key) | {"ground_truth": record.annotations_digest} for record in records)
    different = [f"{name}: {one[name]} and {two[name]}" for name in one if one[name] != two[name]]
    if different:
        raise UserError(f"{first} and {second} are not comparable: {'; '.join(different)}.")
