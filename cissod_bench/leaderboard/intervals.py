"""Spread over validation images for the rows of a table, and which rows differ from the baseline by more than that.

The AP of a row is the mean over its training seeds. All rows are resampled alike, so that differences are paired. The
spread over seeds is a separate quantity (`comparable.py`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.evaluation.bootstrap import Interval, WeightedAP, group_interval, image_samples
from cissod_bench.evaluation.groups import load_evaluation
from cissod_bench.evaluation.inputs import GroundTruth, read_detections, read_ground_truth
from cissod_bench.evaluation.matches import match
from cissod_bench.leaderboard.comparable import Row, RunSet
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.results.known_truth import KnownTruths
from cissod_bench.results.record import RESULT_FILE, Result

BASELINE = "soft-teacher"
"""Method that others are compared with unless another is asked for; runs without it are not compared."""
Samples = Iterable[NDArray[np.int64]]
Progress = Callable[[Samples], Samples]


@dataclass(frozen=True)
class IntervalRow:
    """Intervals of one row: group -> its AP, and its AP minus that of the baseline; None without ground truth."""

    label: str
    values: dict[str, Interval | None]
    differences: dict[str, Interval | None]

    def differs(self, group: str) -> bool:
        """Whether the difference to the baseline is more than chance."""
        found = self.differences.get(group)
        return found is not None and found.excludes_zero


def image_intervals(
    run_set: RunSet,
    *,
    baseline: str = BASELINE,
    samples: int = 1000,
    seed: int = 0,
    progress: Progress = iter,
) -> tuple[IntervalRow, ...]:
    """Bootstrap over images for the regular rows of a set of runs.

    Args:
        run_set: comparable runs.
        baseline: method, with its default options, that the others are compared with; a published row of it where no
            other has it; if no row has it, there are no differences.
        samples: bootstrap samples.
        seed: of the samples.
        progress: wraps the loop over samples.

    Raises:
        UserError: the detections of a run or the ground truth no longer exist. Published rows whose detections are not
            installed are left out instead.
    """
    rows = [row for row in run_set.rows if not row.problem and not (row.published and _without_detections(row))]
    if not rows:
        return ()
    results = [result for row in rows for result in row.results]
    folder = rows[0].runs[0].path.parent
    elsewhere = rows[0].published or _named_annotations(results[0], folder) is None
    truth = (KnownTruths().find(results[0]) if elsewhere else None) or ground_truth(results[0], folder)
    weighted = [[weighted_ap(run.path.parent, run.result, truth) for run in row.runs] for row in rows]
    ones = np.ones(len(truth.image_ids))
    estimates = [np.mean([ap(ones) for ap in runs], axis=0) for runs in weighted]
    resampled: list[list[NDArray[np.float64]]] = [[] for _ in rows]
    for sample in progress(image_samples(len(truth.image_ids), samples, seed)):
        weights = sample.astype(np.float64)
        for of_row, runs in zip(resampled, weighted, strict=True):
            of_row.append(np.mean([ap(weights) for ap in runs], axis=0))
    sampled = [np.stack(of_row) for of_row in resampled]
    members = group_members(results[0], folder, truth)
    of_baseline = [i for i, row in enumerate(rows) if row.method == baseline and not row.options]
    # One that competes before a published one, of these the newest version.
    base = max(of_baseline, key=lambda i: (not rows[i].beside, rows[i].version or 0), default=None)
    return tuple(
        IntervalRow(
            label=row.label,
            values={group: group_interval(estimate, samples_here, where) for group, where in members.items()},
            differences={
                group: group_interval(estimate - estimates[base], samples_here - sampled[base], where)
                for group, where in members.items()
            }
            if base is not None and index != base
            else {},
        )
        for index, (row, estimate, samples_here) in enumerate(zip(rows, estimates, sampled, strict=True))
    )


def _without_detections(row: Row) -> bool:
    return any(not (run.path.parent / run.result.files.get("detections", RESULT_FILE)).is_file() for run in row.runs)


def ground_truth(record: Result, folder: Path, annotations: Path | None = None) -> GroundTruth:
    """The annotations that a record was scored against.

    Raises:
        UserError: they no longer exist or have changed.
    """
    path = annotations or _named_annotations(record, folder)
    if path is None or not path.is_file():
        named = path or record.annotations or "not named in the record"
        raise UserError(
            f"{folder}: the ground truth of the run does not exist ({named}). Put it there; `compare` and `errors` "
            "also take the file as --annotations."
        )
    truth = read_ground_truth(path, lvis=record.key.rules == "lvis")
    if record.annotations_digest not in (None, truth.digest()):
        raise UserError(f"{path} is not the ground truth that {folder} was scored against, or has changed since.")
    return truth


def _named_annotations(record: Result, folder: Path) -> Path | None:
    """The file that a record names, None if it does not exist.

    A relative path starts at the folder that the run was started in, which is not recorded. It is looked for from the
    working directory and from the folders above the run; the digest tells another file of that name.
    """
    if record.annotations is None:
        return None
    return next(
        filter(Path.is_file, (start / record.annotations for start in (Path(), *folder.absolute().parents))), None
    )


def weighted_ap(folder: Path, record: Result, truth: GroundTruth) -> WeightedAP:
    """The detections of a run, matched and ready to be resampled.

    Raises:
        UserError: the record names no detections, or they do not exist.
    """
    if "detections" not in record.files:
        raise UserError(f"{folder}: the record names no detections, so there is nothing to resample.")
    detections = read_detections(folder / record.files["detections"], truth)
    lvis = record.key.rules == "lvis"
    return WeightedAP(match(truth, detections, max_detections=record.key.max_detections, lvis=lvis))


def group_members(record: Result, folder: Path, truth: GroundTruth) -> dict[str, list[int]]:
    """Group -> positions of its classes in the ground truth.

    Raises:
        UserError: the per-class arrays of the run, which name the classes of each group, do not exist.
    """
    if "per_class" not in record.files:
        raise UserError(f"{folder}: the record names no per-class arrays, which say what the groups are.")
    groups = load_evaluation(folder / record.files["per_class"]).groups
    index = {name: position for position, name in enumerate(truth.class_names)}
    return {group: [index[name] for name in names] for group, names in groups.items()}


def intervals_table(run_set: RunSet, rows: tuple[IntervalRow, ...], baseline: str) -> Table:
    """AP with its 95 % interval over images, and the difference to the baseline with its own, by group."""
    compared = any(row.differences for row in rows)
    columns = [Column("method", "Method")]
    for group in run_set.groups:
        columns += [Column(f"{group}_AP", "AP", group, "reference"), Column(f"{group}_half", "±", group, "reference")]
        if compared:
            columns.append(Column(f"{group}_difference", f"Δ {baseline}", group, "difference"))
            columns.append(Column(f"{group}_difference_half", "±", group, "reference"))
    body = []
    for row in rows:
        cells = [Cell(row.label)]
        for group in run_set.groups:
            cells += _value_and_half(row.values.get(group))
            if compared:
                cells += _value_and_half(row.differences.get(group), "*" if row.differs(group) else "")
        body.append(tuple(cells))
    note = f"* differs from {baseline}: the interval of the difference excludes zero."
    return Table(
        name=f"{run_set.name}-images",
        title=f"{run_set.title}: spread over validation images",
        caption="AP in percent and half width of its 95 % interval, bootstrap over images, paired between rows.",
        columns=tuple(columns),
        rows=tuple(body),
        ranked=0,
        notes=(note,) if compared else (),
    )


def _value_and_half(found: Interval | None, mark: str = "") -> list[Cell]:
    if found is None:
        return [Cell(None), Cell(None)]
    return [Cell(found.value, mark=mark), Cell(found.half)]
