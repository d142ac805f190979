"""Gain over supervised: what a method makes of the unlabelled images, for all and for the rarest classes."""

from collections import Counter

from cissod_bench.leaderboard.comparable import Row, Run, RunSet, Spread, spread

SUPERVISED = "supervised"
"""The method that trains on D_l alone (`baselines/supervised.py`)."""
GROUPS = ("all", "min", "r")
"""Groups of the column: all classes, and the minority classes or, by frequency, the rare ones."""


def gain_groups(run_set: RunSet) -> tuple[str, ...]:
    """The groups of a set that have a gain over supervised; none where it has no supervised run."""
    supervised = any(_supervised(run_set, published) for published in (False, True))
    return tuple(group for group in run_set.groups if group in GROUPS) if supervised else ()


def gain(run_set: RunSet, row: Row, group: str, metric: str) -> Spread | None:
    """Mean over training seeds of a row's metric minus that of the supervised run with the same seed.

    Only seeds that both have count; published rows gain over published runs. None for the supervised row itself, where
    no seed is common, and where a metric is not defined.
    """
    if row.method == SUPERVISED:
        return None
    reference = _supervised(run_set, row.published)
    found = []
    for run in row.runs:
        seed = run.result.key.train_seed
        if seed in reference:
            values = (run.result.metrics[group][metric], reference[seed].result.metrics[group][metric])
            if values[0] is None or values[1] is None:
                return None
            found.append(values[0] - values[1])
    return spread(found) if found else None


def _supervised(run_set: RunSet, published: bool) -> dict[int | None, Run]:
    """The supervised runs of the newest version by training seed; without unknown and repeated seeds."""
    rows = [row for row in run_set.rows if row.method == SUPERVISED and row.published == published]
    newest = max((row.version or 0 for row in rows), default=0)
    runs = [run for row in rows if (row.version or 0) == newest for run in row.runs]
    times = Counter(run.result.key.train_seed for run in runs)
    return {seed: run for run in runs if (seed := run.result.key.train_seed) is not None and times[seed] == 1}
