"""One row for several splits of a task: the mean over split seeds or folds, training seeds averaged inside each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.comparable import Row, RunSet, Spread, spread
from cissod_bench.leaderboard.table import Cell, Column, Table

_OF_SPLIT = ("split_digest", "split_seed", "ground_truth", "class_groups")
"""Fields in which the splits of a task differ; folds differ in their validation images as well."""


def over_splits(run_sets: Sequence[RunSet], *, metric: str = "AP") -> list[Table]:
    """A table for each group of at least two sets of runs that differ in their split alone.

    Args:
        run_sets: sets of comparable runs.
        metric: one of `evaluation.METRICS`.
    """
    families: dict[str, list[RunSet]] = {}
    for run_set in run_sets:
        key = [without_split(run_set), run_set.groups, label_fraction(run_set)]
        families.setdefault(canonical_json(key), []).append(run_set)
    return [_table(family, metric) for family in families.values() if _differ(family)]


def without_split(run_set: RunSet) -> dict[str, Any]:
    """The fields of a set that do not depend on its split."""
    return {name: value for name, value in run_set.fields.items() if name not in _OF_SPLIT}


def label_fraction(run_set: RunSet) -> float | None:
    """The labelled fraction of a set's split; None where no record says it. Means are never over several."""
    found = {run.result.label_fraction for row in run_set.rows for run in row.runs} - {None}
    return found.pop() if len(found) == 1 else None


def _differ(family: Sequence[RunSet]) -> bool:
    """Whether the sets are of splits of their own; two of one split differ in the ground truth, and are no sample."""
    digests = {run_set.fields["split_digest"] for run_set in family}
    return 1 < len(family) == len(digests)


def _table(family: Sequence[RunSet], metric: str) -> Table:
    first = family[0]
    by_method: dict[tuple[str, str, int | None], dict[str, Row]] = {}
    for run_set in family:
        for row in run_set.rows:
            if row.ranked:
                key = (row.method, canonical_json(dict(row.options)), row.version)
                by_method.setdefault(key, {})[run_set.fields["split_digest"]] = row
    complete, notes = [], []
    for of_splits in by_method.values():
        label = next(iter(of_splits.values())).label
        if len(of_splits) == len(family):
            complete.append((label, list(of_splits.values())))
        else:
            notes.append(f"{label}: has a mean on {len(of_splits)} of {len(family)} splits, so it is left out.")
    found = [(label, rows, {group: _over(rows, group, metric) for group in first.groups}) for label, rows in complete]
    found.sort(key=lambda each: (-(mean.mean if (mean := each[2]["all"]) else -1.0), each[0]))
    columns = [Column("rank", "#", kind="rank"), Column("method", "Method"), Column("splits", "Splits", kind="count")]
    columns += [Column("seeds", "Seeds per split")]
    columns += [Column(f"{group}_{metric}", group, metric, "metric") for group in first.groups]
    body = []
    for index, (label, rows, means) in enumerate(found):
        seeds = sorted({len(row.runs) for row in rows})
        cells = [Cell(index + 1), Cell(label), Cell(len(rows)), Cell("–".join(map(str, dict.fromkeys(seeds))))]
        cells += [Cell(None) if mean is None else Cell(mean.mean, mean.std) for mean in means.values()]
        body.append(tuple(cells))
    known = {name: text for name, text in first.distinction.items() if name not in _OF_SPLIT}
    splits = sorted((str(each.fields["split_seed"]), each.fields["split_digest"][:12]) for each in family)
    listed = ", ".join(f"{digest} (seed {seed})" for seed, digest in splits)
    return Table(
        name=f"{first.name}-over-splits",
        title=f"{replace(first, distinction=known).title}: {len(family)} splits",
        caption=f"{metric} in percent: mean ± standard deviation over splits, of which each is a mean over its seeds.",
        columns=tuple(columns),
        rows=tuple(body),
        ranked=len(body),
        notes=(f"Splits: {listed}.", *notes),
    )


def _over(rows: Sequence[Row], group: str, metric: str) -> Spread | None:
    """Mean and spread over splits of the means over training seeds; None where one is not defined."""
    means = [found.mean for row in rows if (found := row.spread(group, metric)) is not None]
    return spread(means) if len(means) == len(rows) else None
