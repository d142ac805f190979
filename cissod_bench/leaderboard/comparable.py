"""Which runs are comparable and go into one table, which of them are averaged, and why the others are not.

Rules:
1. One table holds runs with equal `record.comparison_fields`, equal class groups and the same ground truth. Tables of
   the same task name the fields in which they differ.
2. A row is the mean over training seeds, of runs that agree in everything else. The seeds of a table are those that any
   of its rows has. If a row lacks one of them it is not averaged: its runs are listed one by one.
3. A run whose training seed is unknown, two runs with the same seed and different numbers, and two seeds with the same
   numbers are also listed one by one.
4. Runs that are listed one by one have no rank.
5. `full-labels` is a reference, not a method: averaged over its own seeds, below the others, without a rank.
6. Two versions of a method are two rows, and so are two records of which one does not say its version.
7. Published runs are rows of their own, averaged over their own seeds. In a table with other runs they stand below the
   ranked rows, without a rank.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.names import DEFAULT, distinguish, flat_texts, unique_names
from cissod_bench.leaderboard.paper import comparison_table
from cissod_bench.leaderboard.provenance import provenance_notes
from cissod_bench.results.record import Result
from cissod_bench.results.run_key import NOT_STATED, RunKey, comparison_fields, replicate_key
from cissod_bench.splits.statistics import GROUP_ORDER

REFERENCE = "full-labels"
"""The method that trains on all training labels (`baselines/full_labels.py`)."""


@dataclass(frozen=True)
class Run:
    """One record, the file that it was read from, and whether it is one of the published runs."""

    path: Path
    result: Result
    published: bool = False


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
class Row:
    """One row: runs that differ only in the training seed, or a single run that must not be averaged.

    Attributes:
        method: name of the method; for a user's own method with the digest of its source.
        options: the options that differ from the defaults of the method.
        runs: by training seed.
        problem: why the runs are not averaged, empty for a regular row.
        distinction: what tells the row from another one with the same method and options: its version, or the
            defaults of its options; and that it is published.
        beside: published runs in a table with other runs, which are the ones that compete.
    """

    method: str
    options: Mapping[str, Any]
    runs: tuple[Run, ...]
    problem: str = ""
    distinction: str = ""
    beside: bool = False

    @property
    def label(self) -> str:
        """The method with its changed options, and the seed if the run is listed by itself."""
        options = ", ".join(f"{name}={canonical_json(value)}" for name, value in sorted(self.options.items()))
        label = f"{self.method} ({options})" if options else self.method
        label = f"{label}, {self.distinction}" if self.distinction else label
        return f"{label}, seed {self.seeds[0]}" if self.problem and self.seeds else label

    @property
    def ranked(self) -> bool:
        """Whether the row competes with others."""
        return not self.problem and self.method != REFERENCE and not self.beside

    @property
    def version(self) -> int | None:
        """Version of the method, None where the records do not say it."""
        return self.runs[0].result.key.method_version

    @property
    def published(self) -> bool:
        """Whether these are published runs."""
        return self.runs[0].published

    @property
    def results(self) -> list[Result]:
        """The records of its runs."""
        return [run.result for run in self.runs]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The known training seeds."""
        return tuple(run.result.key.train_seed for run in self.runs if run.result.key.train_seed is not None)

    def values(self, group: str, metric: str) -> list[float] | None:
        """The metric of every run, None if it is not defined for the group."""
        values = [run.result.metrics[group][metric] for run in self.runs]
        return None if None in values else [value for value in values if value is not None]

    def spread(self, group: str, metric: str) -> Spread | None:
        """Mean and spread over the runs, None if the metric is not defined for the group."""
        values = self.values(group, metric)
        return None if values is None else spread(values)


@dataclass(frozen=True)
class RunSet:
    """A set of comparable runs.

    Attributes:
        fields: what they have in common.
        groups: class groups, "all" first.
        rows: ranked rows by descending AP of all classes, then the reference, then runs that are listed one by one.
        notes: what readers must know about the rows.
        distinction: field -> text of what tells the set from the others of its task (`names.py`).
        name: part of file names and labels, unique in a report.
    """

    fields: Mapping[str, Any]
    groups: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    distinction: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.fields["task"])

    @property
    def shortened(self) -> bool:
        """Whether the schedule is shorter than that of the protocol."""
        return bool(self.fields["shortened"])

    @property
    def length(self) -> str:
        """Schedule and iterations. The full schedule goes without a word: of many tasks it is not the paper's."""
        length = f"{self.fields['iterations']:,} iterations"
        full = self.fields["schedule"] == "paper" and comparison_table(self.task) is None
        return length if full else f"{self.fields['schedule']} schedule, {length}"

    @property
    def title(self) -> str:
        """One line: task, protocol, length, and what tells the set from the others of the task."""
        mark = ", shortened" if self.shortened else ""
        known = ("protocol", "schedule", "iterations", "shortened")
        more = "".join(f", {name} {text}" for name, text in self.distinction.items() if name not in known)
        return f"{self.task} (protocol {self.fields['protocol']}), {self.length}{mark}{more}"


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and 95 % t-interval."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Spread(mean, None, None, 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Spread(mean, std, t_quantile(count - 1) * std / math.sqrt(count), count)


@functools.cache
def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution with a whole number of degrees of freedom.

    With angle = atan(t / sqrt(degrees)), P(|T| <= t) is a finite sum of sines and cosines (Abramowitz and Stegun,
    26.7.3 and 26.7.4) that grows with the angle, so the angle is bisected. SciPy has the quantile too, but it would add
    a third to what an installation without PyTorch takes on disk.
    """
    odd = degrees % 2
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        term = math.cos(angle) if odd else 1.0
        total = term if degrees > 1 else 0.0
        for power in range(2 + odd, degrees - 1, 2):
            term *= (power - 1) / power * math.cos(angle) ** 2
            total += term
        inside = math.sin(angle) * total
        if odd:
            inside = 2 / math.pi * (angle + inside)
        low, high = (angle, high) if inside < 0.95 else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def comparable_run_sets(
    results: Iterable[tuple[Path, Result]], published: Iterable[tuple[Path, Result]] = ()
) -> list[RunSet]:
    """Sort runs into sets of comparable runs by the rules at the top of this file.

    Ordered by task; within a task full schedules come first, then the longest.

    Args:
        results: records with their paths.
        published: those of published runs. Where there are results, only those that are comparable with one.
    """
    by_key: dict[str, list[Run]] = {}
    runs = [Run(path, result) for path, result in results]
    for run in (*runs, *(Run(path, result, published=True) for path, result in published)):
        result = run.result
        sizes = {group: size.classes for group, size in result.groups.items()}
        fields = comparison_fields(result.key) | {"ground_truth": result.annotations_digest, "class_groups": sizes}
        by_key.setdefault(canonical_json(fields), []).append(run)
    if runs:
        by_key = {key: members for key, members in by_key.items() if not all(run.published for run in members)}
    run_sets = [_run_set(by_key[key]) for key in sorted(by_key)]
    run_sets.sort(key=lambda run_set: (run_set.task, run_set.shortened, -run_set.fields["iterations"]))
    of_sets = [{**run_set.fields, "labelled": labelled(run_set)} for run_set in run_sets]
    distinctions = distinguish(of_sets)
    names = unique_names(of_sets, distinctions)
    return [
        replace(run_set, distinction=distinction, name=name)
        for run_set, distinction, name in zip(run_sets, distinctions, names, strict=True)
    ]


def labelled(run_set: RunSet) -> str:
    """How much of the training images a set's split labels, for titles: better to read than the digest of the split."""
    results = [result for row in run_set.rows for result in row.results]
    fractions = {each.label_fraction for each in results if each.label_fraction is not None}
    images = {each.data["labeled_images"] for each in results if each.data and "labeled_images" in each.data}
    if len(fractions) == 1:
        return f"{100 * fractions.pop():g} %"
    return f"{images.pop():,} images" if len(images) == 1 and not fractions else NOT_STATED


def differences(one: RunSet, other: RunSet) -> list[str]:
    """Why two sets of runs are not one: the fields that differ, as "schedule: short here, paper there"."""
    here, there = flat_texts(one.fields), flat_texts(other.fields)
    return [
        f"{name}: {here.get(name, DEFAULT)} here, {there.get(name, DEFAULT)} there"
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    ]


def _run_set(runs: Sequence[Run]) -> RunSet:
    replicates: dict[tuple[bool, str], list[Run]] = {}
    for run in runs:
        replicates.setdefault((run.published, replicate_key(run.result.key)), []).append(run)
    expected = {
        published: {
            run.result.key.train_seed
            for run in runs
            if run.published == published and run.result.key.method != REFERENCE
        }
        - {None}
        for published in (False, True)
    }
    beside = len({run.published for run in runs}) == 2
    regular: list[Row] = []
    apart: list[Row] = []
    problems: dict[str, list[str]] = {}
    notes: list[str] = []
    distinctions = _distinctions([members[0].result.key for members in replicates.values()])
    for published, key in sorted(replicates):
        members = sorted(replicates[published, key], key=lambda run: (_seed_order(run.result.key), str(run.path)))
        members, repeated = _without_copies(members)
        notes += [f"{run.path}: the same run with the same numbers is counted once." for run in repeated]
        method, options = _method_name(members[0].result.key), members[0].result.key.method_options
        needed = {seed for seed in expected[published] if seed is not None} if method != REFERENCE else set()
        problem = _problem(members, needed)
        words = [word for word in (distinctions[key], "published" * published) if word]
        row = Row(method, options, tuple(members), distinction=", ".join(words), beside=beside and published)
        if problem:
            apart += [replace(row, runs=(run,), problem=problem) for run in members]
            problems.setdefault(problem, []).append(row.label)
        else:
            regular.append(row)
        notes += provenance_notes(row.label, [run.result for run in members])
    reasons = []
    for problem, labels in problems.items():
        whose = "its" if len(labels) == 1 else "their"
        reasons.append(f"{'; '.join(labels)}: {problem}; {whose} runs are not averaged and not ranked.")
    notes = [*reasons, *notes]
    if any(row.method == REFERENCE for row in (*regular, *apart)):
        notes.append(f"{REFERENCE} is trained on all training labels: a reference, not semi-supervised, so not ranked.")
    if beside:
        notes.append("Published rows have seeds of their own and come from other machines; here they have no rank.")
    regular.sort(key=lambda row: (not row.ranked, row.beside, -(_rank_value(row)), row.label))
    result = runs[0].result
    groups = tuple(sorted(result.groups, key=lambda group: (group != "all", _group_order(group), group)))
    fields = comparison_fields(result.key) | {
        "ground_truth": result.annotations_digest,
        "class_groups": " ".join(f"{group}={result.groups[group].classes}" for group in groups),
    }
    return RunSet(fields, groups, (*regular, *apart), tuple(notes))


def _method_name(key: RunKey) -> str:
    """The name of the method; a user's own file has its digest added, since another file may have the same name."""
    return key.method if key.method_digest is None else f"{key.method}@{key.method_digest[:8]}"


def _distinctions(keys: Sequence[RunKey]) -> dict[str, str]:
    """Replicate key -> what tells a row from others with the same method and changed options; mostly nothing."""
    alike: dict[str, list[RunKey]] = {}
    for key in keys:
        alike.setdefault(canonical_json([_method_name(key), key.method_options]), []).append(key)
    found = {}
    for group in alike.values():
        versions = {key.method_version for key in group}
        for key in group:
            words = []
            if len(versions) > 1:
                words.append("version not recorded" if key.method_version is None else f"version {key.method_version}")
            peers = [peer.resolved_options or {} for peer in group if peer.method_version == key.method_version]
            own = key.resolved_options or {}
            different = sorted(name for name in own if any(peer.get(name) != own[name] for peer in peers))
            words += [f"{name}={canonical_json(own[name])}" for name in different]
            found[replicate_key(key)] = ", ".join(words)
    return found


def _problem(members: Sequence[Run], expected: set[int]) -> str:
    seeds = [run.result.key.train_seed for run in members]
    if any(run.result.annotations_digest is None for run in members):
        return "the ground truth of a run is not recorded"
    if None in seeds:
        return "the training seed of a run is not known"
    twice = sorted({seed for seed in seeds if seed is not None and seeds.count(seed) > 1})
    if twice:
        return f"two runs with training seed {twice[0]} have different numbers"
    equal = _equal_seeds(members)
    if equal:
        return f"training seeds {equal[0]} and {equal[1]} have the same numbers to the last bit, as a copy would"
    missing = sorted(expected.difference(seeds))
    if missing:
        what = "seed {} is" if len(missing) == 1 else "seeds {} are"
        return f"training {what.format(', '.join(map(str, missing)))} missing, which other rows of this table have"
    return ""


def _equal_seeds(members: Sequence[Run]) -> tuple[int | None, int | None] | None:
    """Two training seeds with identical metrics. Detectors that found nothing are equal without being copies."""
    seen: dict[str, int | None] = {}
    for run in members:
        metrics = run.result.metrics
        if any(value for values in metrics.values() for value in values.values()):
            seed, text = run.result.key.train_seed, canonical_json(metrics)
            if text in seen:
                return seen[text], seed
            seen[text] = seed
    return None


def _without_copies(members: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The runs without copies, and the copies: runs with the seed and exactly the metrics of another one."""
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
    return GROUP_ORDER.index(group) if group in GROUP_ORDER else len(GROUP_ORDER)


def _rank_value(row: Row) -> float:
    found = row.spread("all", "AP")
    return found.mean if found else -1.0
