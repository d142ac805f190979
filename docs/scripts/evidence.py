"""Tables of the pages on results: the published runs of a task at its greatest length."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.api.results import paper_variants
from cissod_bench.evaluation import load_evaluation
from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.comparable import Run, RunSet, Spread, comparable_run_sets, spread
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.paper import PaperTable
from cissod_bench.leaderboard.report import Report
from cissod_bench.leaderboard.tables import run_set_table
from cissod_bench.leaderboard.writers import markdown
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.diagnostics import Observables, last_part, read_observables
from cissod_bench.training.recipes.detectors import get_detector

SHARES = ("{:.2f}", "{:.3f}")
"""Precision and recall in one cell."""


def methods_alone(report: Report) -> Report:
    """A report without the rows of changed options: ablations have tables of their own."""
    rows = [row for each in report.run_sets for row in each.rows if not row.options]
    run_sets = comparable_run_sets([], [(run.path, run.result) for row in rows for run in row.runs])
    tables = tuple(run_set_table(each, run_sets) for each in run_sets)
    return replace(report, run_sets=tuple(run_sets), tables=tables, splits=tuple(over_splits(run_sets)))


def run_set_of(report: Report, task: str, schedule: str = "paper") -> tuple[int, RunSet]:
    """The runs of most methods on a task, of several such sets the longest, and their place in the report."""
    every = [(place, each) for place, each in enumerate(report.run_sets) if each.task == task]
    found = [(place, each) for place, each in every if each.fields["schedule"] == schedule]
    return max(found, key=lambda pair: (len({row.method for row in pair[1].rows}), pair[1].fields["iterations"]))


def scores(report: Report, task: str, schedule: str = "paper") -> str:
    """The leaderboard of those runs, without a heading."""
    text = markdown(report.tables[run_set_of(report, task, schedule)[0]]).replace(", published", "")
    return text.partition("\n")[2].strip()


def pseudo_labels(report: Report, task: str) -> list[list[str]]:
    """For each method precision and recall of pseudo labels by group, and the means of what gbs steers."""
    _, run_set = run_set_of(report, task)
    groups = groups_of(run_set)
    rows, methods = [], [row.method for row in run_set.rows]
    for row in run_set.rows:
        cells = [f"`{row.method}`" + (f", seed {row.seeds[0]}" if methods.count(row.method) > 1 else "")]
        for members in groups.values():
            cells.append(_mean(row.runs, lambda late, those=members: _shares(late, those), SHARES))
        for name in ("weights", "thresholds"):
            for members in groups.values():
                cells.append(
                    _mean(row.runs, lambda late, those=members, name=name: _values(late, name, those), ["{:.2f}"])
                )
        if any(cell != "–" for cell in cells[1:]):
            rows.append(cells)
    return rows


def groups_of(run_set: RunSet) -> dict[str, NDArray[np.int64]]:
    """Group -> positions of its classes."""
    run = run_set.rows[0].runs[0]
    arrays = load_evaluation(run.path.parent / run.result.files["per_class"])
    position = {name: index for index, name in enumerate(arrays.class_names)}
    names = [name for name in run_set.groups if name != "all"]
    return {name: np.array([position[member] for member in arrays.groups[name]]) for name in names}


def _late(runs: Sequence[Run]) -> Iterator[Observables]:
    """The logs of runs over their last part."""
    for run in runs:
        arrays = load_evaluation(run.path.parent / run.result.files["per_class"])
        found = read_observables(run.path.parent, len(arrays.class_names))
        if found is not None:
            yield last_part(found)


def _mean(runs: Sequence[Run], measure: Callable[[Observables], list[float] | None], forms: Sequence[str]) -> str:
    """Means over the runs that have a number, side by side."""
    found = [numbers for each in _late(runs) if (numbers := measure(each)) is not None]
    columns = [[number for number in column if not np.isnan(number)] for column in zip(*found, strict=True)]
    shown = [form.format(np.mean(known)) if known else "–" for form, known in zip(forms, columns, strict=False)]
    return " / ".join(shown) if shown else "–"


def _shares(late: Observables, members: NDArray[np.int64]) -> list[float] | None:
    """Precision and recall over all pseudo labels of a group; a run that gave none has no precision, and recall 0."""
    if late.counts is None:
        return None
    right, given, annotated = late.counts[:, :, members].sum(axis=(0, 2))
    return [right / given if given else np.nan, right / annotated] if annotated else None


def _values(late: Observables, name: str, members: NDArray[np.int64]) -> list[float] | None:
    if name not in late.values or np.isnan(late.values[name][:, members]).all():
        return None
    return [float(np.nanmean(late.values[name][:, members]))]


def ablations(report: Report, task: str, part: PaperTable, against: str) -> tuple[list[int], list[list[str]]]:
    """The rows of Table 4 or 5, the paper's numbers beside those of a task, over the seeds that all its rows have.

    Returns:
        the seeds; for each row its label, the paper's AP, AP here, the minority's distance from row `against`, and
        its AP with every seed that was run, in the order of seeds.
    """
    measured = _runs_of(report, task, part)
    seeds, every = _seeds_of_all(measured), sorted({seed for runs in measured.values() for seed in runs})
    rows = []
    for row in part.rows:
        cells = [row.label, slashed(row.ap.values())]
        runs, others = ([measured[label][seed] for seed in seeds if measured[label]] for label in (row.label, against))
        cells.append(" / ".join(percent(spread(_ap(runs, group))) for group in row.ap) if runs else "not run yet")
        gains = [one - other for one, other in zip(_ap(runs, "min"), _ap(others, "min"), strict=False)]
        cells.append(percent(spread(gains), sign="+") if gains and row.label != against else "–")
        single = [[measured[row.label][seed]] if seed in measured[row.label] else [] for seed in every]
        rows.append([*cells, " / ".join(percent(spread(_ap(run, "min"))) if run else "–" for run in single)])
    return seeds, rows


def ablation_pseudo_labels(report: Report, task: str, parts: Sequence[PaperTable]) -> list[list[str]]:
    """For each row of Tables 4 and 5 that was run: its minority AP, highest first, and its pseudo labels by group.

    A row of Table 5 that Table 4 has too stands once.
    """
    groups = groups_of(run_set_of(report, task)[1])
    rows: dict[str, Sequence[Run]] = {}
    for part in parts:
        measured = _runs_of(report, task, part)
        seeds = _seeds_of_all(measured)
        for label, runs in measured.items():
            chosen = [runs[seed] for seed in seeds if runs]
            if chosen and chosen not in rows.values():
                rows[label if part.number == 4 else f"{label} (CrS + GbR)"] = chosen
    found = sorted(rows.items(), key=lambda pair: -spread(_ap(pair[1], "min")).mean)
    shares = [
        [_mean(runs, lambda late, those=members: _shares(late, those), SHARES) for members in groups.values()]
        for _, runs in found
    ]
    return [
        [label, percent(spread(_ap(runs, "min"))), *cells] for (label, runs), cells in zip(found, shares, strict=True)
    ]


def _runs_of(report: Report, task: str, part: PaperTable) -> dict[str, dict[int, Run]]:
    """Row of Table 4 or 5 -> training seed -> the run of today's version, empty where there is none."""
    _, run_set = run_set_of(report, task)
    theta = get_detector(run_set.fields["detector"]).theta
    found: dict[str, dict[int, Run]] = {}
    for row in run_set.rows:
        if row.version == METHODS[row.method].version:
            runs = {run.result.key.train_seed: run for run in row.runs if run.result.key.train_seed is not None}
            found.setdefault(_variant(row.method, row.options, theta), {}).update(runs)
    variants = paper_variants()
    return {row.label: found.get(_variant(*variants[part.number, row.label], theta), {}) for row in part.rows}


def _seeds_of_all(measured: Mapping[str, Mapping[int, Run]]) -> list[int]:
    """The training seeds that all rows have which were run at all."""
    of_rows = [set(runs) for runs in measured.values() if runs]
    return sorted(set.intersection(*of_rows)) if of_rows else []


def _variant(method: str, options: Mapping[str, Any], theta: float) -> str:
    """A method with changed options; a threshold that is the detector's own is no change."""
    changed = {name: value for name, value in options.items() if (name, value) != ("theta", theta)}
    return canonical_json([method, changed])


def _ap(runs: Sequence[Run], group: str) -> list[float]:
    """AP by run."""
    return [run.result.metrics[group]["AP"] or 0.0 for run in runs]


def percent(found: Spread, sign: str = "") -> str:
    """Mean and standard deviation of fractions, in percent."""
    return f"{100 * found.mean:{sign}.1f}" + ("" if found.std is None else f" ± {100 * found.std:.1f}")


def slashed(values: Iterable[float]) -> str:
    """Numbers of one row of the paper in one cell."""
    return " / ".join(f"{value:.1f}" for value in values)
