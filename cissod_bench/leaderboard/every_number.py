"""Every number of a report, for programs: AP as a fraction, unrounded, by row, group and metric."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from cissod_bench.leaderboard.comparable import Row, RunSet
from cissod_bench.leaderboard.intervals import IntervalRow
from cissod_bench.leaderboard.paper import comparison_table
from cissod_bench.leaderboard.setting import Standards, departures, is_standard
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.leaderboard.tables import disagrees

OVER_IMAGES = ("image_interval", "difference", "difference_interval", "significant")
"""What `report --bootstrap` adds to AP, see `_over_images`."""
COSTS = ("parameters", "flops", "latency_ms", "gpu_hours")
"""Fields of `results.record.Costs` in the table for programs."""


def every_number(
    run_sets: Sequence[RunSet],
    standards: Standards = MappingProxyType({}),
    intervals: Sequence[Sequence[IntervalRow]] = (),
) -> list[dict[str, Any]]:
    """Every number of every row, for programs: AP and the like in [0, 1].

    Args:
        run_sets: sets of comparable runs.
        standards: the methods as they are today; the paper's numbers stand beside these.
        intervals: of each set the rows with intervals over images; empty where nothing was resampled.

    Returns:
        for each row what it is, with `scores`: group -> metric -> `mean`, `std` and `t_interval` over training seeds,
        each None where there is none; beside AP that the paper has, `paper` and `disagrees_with_paper`; and for AP
        that was resampled what `_over_images` says.
    """
    found = []
    for place, run_set in enumerate(run_sets):
        over_images = {row.label: row for of_set in intervals[place : place + 1] for row in of_set}
        paper = comparison_table(run_set.task)
        references = {row.method: row for row in paper.rows} if paper and not departures(run_set) else {}
        shared = {"table": run_set.name, **{name: _plain(value) for name, value in run_set.fields.items()}}
        for row in run_set.rows:
            reference = references.get(row.method) if is_standard(row, standards) else None
            results = row.results
            about: dict[str, Any] = {"row": row.label, "method": row.method, "method_version": row.version}
            about |= {"options": dict(row.options), "resolved_options": results[0].key.resolved_options}
            about |= {"seeds": list(row.seeds), "problem": row.problem, "published": row.published}
            about["package_versions"] = sorted({each.package_version for each in results if each.package_version})
            states = [each.git.dirty for each in results if each.git is not None]
            about["dirty"] = any(states) if states else None
            about |= {name: _mean_cost(row, name) for name in COSTS}
            about["runs"] = [str(run.path.parent) for run in row.runs]
            scores: dict[str, dict[str, dict[str, Any]]] = {}
            for group in run_set.groups:
                printed = reference.ap.get(group) if reference else None
                scores[group] = {name: _score(row, group, name, printed) for name in metric_names(run_set)}
                if row.label in over_images:
                    scores[group]["AP"] |= _over_images(over_images[row.label], group)
            found.append({**shared, **about, "scores": scores})
    return found


def tidy_table(
    run_sets: Sequence[RunSet],
    standards: Standards = MappingProxyType({}),
    intervals: Sequence[Sequence[IntervalRow]] = (),
) -> Table:
    """`every_number` as a table, one number per row."""
    fields = list(run_sets[0].fields) if run_sets else []
    about = ["table", *fields, "row", "method", "method_version", "options", "resolved_options", "seeds", "problem"]
    score = ["mean", "std", "t_interval", *OVER_IMAGES, "paper", "disagrees_with_paper"]
    made = ["published", "package_versions", "dirty"]
    names = [*about, "group", "metric", *score, *made, *COSTS, "runs"]
    body = []
    for row in every_number(run_sets, standards, intervals):
        for group, of_group in row["scores"].items():
            for metric, numbers in of_group.items():
                values = {**row, "group": group, "metric": metric, **numbers}
                body.append(tuple(Cell(values.get(name)) for name in names))
    return Table("results", "All results", "", tuple(Column(name, name) for name in names), tuple(body), ranked=0)


def _score(row: Row, group: str, metric: str, printed: float | None) -> dict[str, Any]:
    """A score over training seeds, beside the paper's AP in percent with one decimal, which becomes a fraction."""
    found = row.spread(group, metric)
    numbers = (found.mean, found.std, found.interval) if found else (None, None, None)
    score: dict[str, Any] = dict(zip(("mean", "std", "t_interval"), numbers, strict=True))
    if metric == "AP" and printed is not None:
        score |= {"paper": round(printed / 100, 6), "disagrees_with_paper": disagrees(found, printed)}
    return score


def _over_images(row: IntervalRow, group: str) -> dict[str, Any]:
    """Half the 95 % interval of AP over images, and the difference to the baseline's AP with its own."""
    value, difference = row.values.get(group), row.differences.get(group)
    return {
        "image_interval": value and value.half,
        "difference": difference and difference.value,
        "difference_interval": difference and difference.half,
        "significant": difference and difference.excludes_zero,
    }


def _mean_cost(row: Row, name: str) -> float | None:
    """Mean over the runs that recorded it."""
    costs = [run.result.costs for run in row.runs]
    values = [value for each in costs if each is not None and (value := getattr(each, name)) is not None]
    if not values:
        return None
    same: float = values[0]
    return same if len(set(values)) == 1 else sum(values) / len(values)  # numbers of parameters stay whole


def metric_names(run_set: RunSet) -> tuple[str, ...]:
    """Names of the metrics that the set's records hold."""
    return tuple(run_set.rows[0].runs[0].result.metrics["all"])


def _plain(value: Any) -> Any:
    """A field as JSON has it."""
    return list(value) if isinstance(value, tuple) else value
