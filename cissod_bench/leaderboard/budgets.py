"""AP over the label budget: sets of runs whose splits label different parts of the same images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.comparable import Row, RunSet, Spread, spread
from cissod_bench.leaderboard.gains import GROUPS
from cissod_bench.leaderboard.over_splits import kind_of_split, label_fraction, same_over_splits, without_split


@dataclass(frozen=True)
class BudgetCurve:
    """AP of a row in a group over the labelled fraction: mean and spread over training seeds and splits."""

    label: str
    group: str
    points: tuple[tuple[float, Spread], ...]


def budget_curves(run_sets: Sequence[RunSet]) -> list[tuple[RunSet, tuple[BudgetCurve, ...]]]:
    """For each family of sets that differ in their split alone, with several labelled fractions: the first and curves.

    Rows whose runs are listed one by one have no curve, and neither have those with one fraction only.
    """
    families: dict[str, list[RunSet]] = {}
    for run_set in run_sets:
        kind = kind_of_split(run_set)
        if kind is not None and label_fraction(run_set) is not None:
            options, *others = kind
            rule = {name: value for name, value in options.items() if name not in ("fraction", "label_budget")}
            same = [without_split(run_set), run_set.groups, rule, *others]
            families.setdefault(canonical_json(same), []).append(run_set)
    found = []
    for family in families.values():
        curves = tuple(_curves(family))
        if curves:
            found.append((family[0], curves))
    return found


def _curves(family: Sequence[RunSet]) -> Iterable[BudgetCurve]:
    by_row: dict[str, dict[float, list[Row]]] = {}
    for run_set in family:
        fraction = label_fraction(run_set)
        for row in run_set.rows:
            if fraction is not None and not row.problem:
                by_row.setdefault(same_over_splits(row), {}).setdefault(fraction, []).append(row)
    for group in [group for group in family[0].groups if group in GROUPS]:
        for rows in by_row.values():
            means = [(fraction, _mean(rows[fraction], group)) for fraction in sorted(rows)]
            points = tuple((fraction, mean) for fraction, mean in means if mean is not None)
            if len(points) > 1:
                yield BudgetCurve(next(iter(rows.values()))[0].label, group, points)


def _mean(rows: Sequence[Row], group: str) -> Spread | None:
    """Mean AP of all runs of the rows; None where a run has none."""
    values = [row.values(group, "AP") for row in rows]
    known = [value for found in values if found is not None for value in found]
    return spread(known) if None not in values else None
