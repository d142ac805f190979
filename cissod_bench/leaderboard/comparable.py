"""Which runs may stand in one table, which may be averaged, and why the others may not.

Rules:
1. One table holds runs with an equal `comparison_key`, equal class groups and the same ground truth. Tables
   of the same task name the fields in which they differ.
2. A row's mean is over training seeds, of runs that agree in everything else. The seeds of a table are those that any
   of its rows has. A row that lacks one of them is not averaged: its runs stand there one by one.
3. A run whose training seed is not known, or of which there are two with different numbers, stands by itself as well.
4. Rows by rule 2's exception and rule 3 get no rank.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.io import canonical_json
from cissod_bench.results.record import Result
from cissod_bench.results.run_key import RunKey, comparison_fields, replicate_key

GROUP_TITLES = {"maj": "majority", "min": "minority", "f": "frequent", "c": "common", "r": "rare"}


@dataclass(frozen=True)
class Run:
    """One record and the file that it was read from."""

    path: Path
    result: Result


@dataclass(frozen=True)
class Spread:
    """Mean over training seeds.

    Attributes:
        mean: mean of `count` values.
        std: sample standard deviation (n - 1), None for one value.
        interval: half width of the 95 % t-interval of the mean, None for one value.
        count: number of seeds.
    """

    mean: float
    std: float | None
    interval: float | None
    count: int


@dataclass(frozen=True)
class Entry:
    """One row: runs that differ in the training seed alone, or a single run that must not be averaged.

    Attributes:
        method: name of the method, of a user's own one with the digest of its source; `options` what was changed from
            its defaults.
        runs: by training seed.
        problem: why the runs are not averaged, empty for a regular row.
    """

    method: str
    options: Mapping[str, Any]
    runs: tuple[Run, ...]
    problem: str = ""

    @property
    def label(self) -> str:
        """The method with its changed options, and the seed of a run that stands by itself."""
        options = ", ".join(f"{name}={canonical_json(value)}" for name, value in sorted(self.options.items()))
        label = f"{self.method} ({options})" if options else self.method
        return f"{label}, seed {self.seeds[0]}" if self.problem and self.seeds else label

    @property
    def seeds(self) -> tuple[int, ...]:
        """The known training seeds."""
        return tuple(run.result.key.train_seed for run in self.runs if run.result.key.train_seed is not None)

    def values(self, group: str, metric: str) -> list[float] | None:
        """The metric of every run, None where it is not defined for the group."""
        values = [run.result.metrics[group][metric] for run in self.runs]
        return None if None in values else [value for value in values if value is not None]

    def spread(self, group: str, metric: str) -> Spread | None:
        """Mean and spread over the runs, None where the metric is not defined for the group."""
        values = self.values(group, metric)
        return None if values is None else spread(values)


@dataclass(frozen=True)
class Section:
    """Runs that may be compared with each other.

    Attributes:
        fields: what they have in common.
        groups: class groups, "all" first.
        entries: regular rows by falling AP of all classes, then the others.
        notes: what a reader must know about the rows.
    """

    fields: Mapping[str, Any]
    groups: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.fields["task"])

    @property
    def shortened(self) -> bool:
        """Whether the schedule is shorter than the protocol's."""
        return bool(self.fields["shortened"])

    @property
    def title(self) -> str:
        """One line: task, protocol, schedule."""
        length = f"{self.fields['schedule']} schedule, {self.fields['iterations']:,} iterations"
        mark = ", shortened" if self.shortened else ""
        return f"{self.task} (protocol {self.fields['protocol']}), {length}{mark}"


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and 95 % t-interval."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Spread(mean, std, float(t.ppf(0.975, count - 1)) * std / math.sqrt(count), count)


def make_sections(results: Iterable[tuple[Path, Result]]) -> list[Section]:
    """Sort runs into comparable sections by the rules at the top of this file.

    The sections come by task, of each task the full and the longest schedules first.
    """
    by_key: dict[str, list[Run]] = {}
    for path, result in results:
        sizes = {group: size.classes for group, size in result.groups.items()}
        fields = comparison_fields(result.key) | {"ground_truth": result.annotations_digest, "class_groups": sizes}
        by_key.setdefault(canonical_json(fields), []).append(Run(path, result))
    sections = [_section(by_key[key]) for key in sorted(by_key)]
    return sorted(sections, key=lambda section: (section.task, section.shortened, -section.fields["iterations"]))


def differences(one: Section, other: Section) -> list[str]:
    """Why two sections are not one: the fields that differ, as "schedule: short here, paper there"."""
    return [
        f"{name}: {_short(one.fields[name])} here, {_short(other.fields[name])} there"
        for name in one.fields
        if one.fields[name] != other.fields[name]
    ]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 24 else text


def _section(runs: Sequence[Run]) -> Section:
    replicates: dict[str, list[Run]] = {}
    for run in runs:
        replicates.setdefault(replicate_key(run.result.key), []).append(run)
    expected = {run.result.key.train_seed for run in runs} - {None}
    regular: list[Entry] = []
    apart: list[Entry] = []
    notes: list[str] = []
    for key in sorted(replicates):
        members = sorted(replicates[key], key=lambda run: (_seed_order(run.result.key), str(run.path)))
        members, repeated = _without_copies(members)
        notes += [f"{run.path}: the same run with the same numbers is counted once." for run in repeated]
        problem = _problem(members, {seed for seed in expected if seed is not None})
        method, options = _method_name(members[0].result.key), members[0].result.key.method_options
        if problem:
            apart += [Entry(method, options, (run,), problem) for run in members]
            notes.append(f"{Entry(method, options, ()).label}: {problem}; its runs are not averaged and not ranked.")
        else:
            regular.append(Entry(method, options, tuple(members)))
    regular.sort(key=lambda entry: (-(_rank_value(entry)), entry.label))
    result = runs[0].result
    groups = tuple(sorted(result.groups, key=lambda group: (group != "all", _group_order(group), group)))
    fields = comparison_fields(result.key) | {
        "ground_truth": result.annotations_digest,
        "class_groups": " ".join(f"{group}={result.groups[group].classes}" for group in groups),
    }
    return Section(fields, groups, (*regular, *apart), tuple(notes))


def _method_name(key: RunKey) -> str:
    """The method's name; a user's own file carries its digest, since another file may have the same name."""
    return key.method if key.method_digest is None else f"{key.method}@{key.method_digest[:8]}"


def _problem(members: Sequence[Run], expected: set[int]) -> str:
    seeds = [run.result.key.train_seed for run in members]
    if None in seeds:
        return "the training seed of a run is not known"
    twice = sorted({seed for seed in seeds if seed is not None and seeds.count(seed) > 1})
    if twice:
        return f"two runs with training seed {twice[0]} have different numbers"
    missing = sorted(expected.difference(seeds))
    if missing:
        return f"training seed {', '.join(map(str, missing))} is missing, which other rows of this table have"
    return ""


def _without_copies(members: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs, and those among them that repeat a run's seed with exactly its metrics (a copied folder)."""
    kept: list[Run] = []
    copies: list[Run] = []
    for run in members:
        seed = run.result.key.train_seed
        same = any(
            seed is not None and other.result.key.train_seed == seed and other.result.metrics == run.result.metrics
            for other in kept
        )
        (copies if same else kept).append(run)
    return kept, copies


def _seed_order(key: RunKey) -> tuple[bool, int]:
    return (key.train_seed is None, key.train_seed or 0)


def _group_order(group: str) -> int:
    order = list(GROUP_TITLES)
    return order.index(group) if group in order else len(order)


def _rank_value(entry: Entry) -> float:
    found = entry.spread("all", "AP")
    return found.mean if found else -1.0
