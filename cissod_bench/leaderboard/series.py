"""The data of charts: AP of every class by frequency, AP over iterations, and what methods logged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.leaderboard.comparable import Row, RunSet
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.results.curves import Curve
from cissod_bench.results.diagnostics import PER_CLASS, group_curve, pseudo_label_curves, pseudo_label_quality
from cissod_bench.splits.statistics import GROUP_ORDER

PSEUDO_LABELS = ("pseudo_precision", "pseudo_recall")
OBSERVED = {
    "pseudo_precision": ("Precision of pseudo labels", "precision in percent", 100),
    "pseudo_recall": ("Recall of pseudo labels", "recall in percent", 100),
    "weights": ("Class weights", "mean class weight $w_i$", 1),
    "thresholds": ("Thresholds", r"mean threshold $\theta_i$", 1),
    "gradient_ratio": ("Gradient ratio", "mean gradient ratio", 1),
    "class_factors": ("Class repeat factors S_i, eq. (10),", "mean repeat factor $S_i$", 1),
    "copies": ("Copies of unlabelled images in a pass, by class,", "mean copies of an image", 1),
    "crs_coverage": ("Part of D_u in the pseudo-label pool", "part of $D_u$ in the pool", 1),
}
"""What methods log, in words, as an axis and its scale: how good a group's pseudo labels are (`PSEUDO_LABELS`), values
per class (`diagnostics.PER_CLASS`) and single numbers of a run."""


MOST_ROWS = 20
"""Rows of a table that charts show, the first ones: more cannot be told apart."""
MOST_POINTS = 30
"""Points of a curve: a long run logs thousands of values, which no figure shows and every page would carry."""
ORDER = "group and {}"
"""What the classes of a chart are ordered by; groups stand side by side."""
BOXES = ORDER.format("boxes in $D_l$")


@dataclass(frozen=True)
class SplitClass:
    """A class of a split; its labelled boxes are None where the statistics of the split are not at hand."""

    name: str
    group: str
    labeled_boxes: int | None


@dataclass(frozen=True)
class ClassSeries:
    """One number per class, for the rows of a set of runs.

    Attributes:
        names: the classes in the order of display.
        order: what they are ordered by, in words.
        groups: the class group of each, side by side; empty where it is not known.
        values: row label -> number in [0, 1] of every class, None if it is not defined.
    """

    names: tuple[str, ...]
    order: str
    groups: tuple[str, ...]
    values: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class RunCurve:
    """A value of one group over the iterations of one run, which belongs to a row of the table."""

    label: str
    group: str
    row: int
    curve: Curve


@dataclass(frozen=True)
class Charts:
    """The data of all charts of a set of runs; what is not known is None or empty.

    Attributes:
        statistics: `split_statistics`.
        classes: `class_series`.
        iterations: `run_curves`.
        pseudo_labels: `pseudo_label_series`.
        observed: `observed_curves` by the names of `OBSERVED`.
    """

    statistics: dict[str, Any] | None
    classes: ClassSeries | None
    iterations: list[RunCurve]
    pseudo_labels: tuple[ClassSeries, ClassSeries] | None
    observed: dict[str, list[RunCurve]]


def charts_of(run_set: RunSet, files: RunFiles) -> Charts:
    """The data of all charts of a set of runs; files that are damaged are left out and noted in `files`."""
    return Charts(
        statistics=split_statistics(run_set, files),
        classes=class_series(run_set, files),
        iterations=run_curves(run_set, files),
        pseudo_labels=pseudo_label_series(run_set, files),
        observed={name: observed_curves(run_set, name, files) for name in OBSERVED},
    )


def class_series(run_set: RunSet, files: RunFiles) -> ClassSeries | None:
    """AP per class, mean over training seeds; None if no row has its per-class arrays."""
    means = {row.label: _class_means(row, files) for row in run_set.rows[:MOST_ROWS]}
    known = {label: found for label, found in means.items() if found}
    if not known:
        return None
    boxes = {each.name: each.labeled_boxes for each in split_classes(run_set, files) if each.labeled_boxes is not None}
    first = next(iter(known.values()))
    by_boxes = bool(boxes) and set(first) <= set(boxes)
    frequency: Mapping[str, float] = boxes if by_boxes else first
    group_of = _class_groups(run_set, files)
    groups = {name: group_of.get(name, "") for name in first}
    names = sorted(first, key=lambda name: (*group_place(groups[name]), -frequency[name], name))
    order = BOXES if by_boxes else ORDER.format("AP of the first row")
    values = {label: tuple(found.get(name) for name in names) for label, found in known.items()}
    return ClassSeries(tuple(names), order, tuple(groups[name] for name in names), values)


def run_curves(run_set: RunSet, files: RunFiles) -> list[RunCurve]:
    """AP over iterations of every run that was evaluated more than once."""

    def logged(folder: Path) -> dict[str, Curve]:
        curves = files.curves(folder)
        return {group: curves[f"{group}/AP"] for group in run_set.groups if f"{group}/AP" in curves}

    return _curves(run_set, logged)


def observed_curves(run_set: RunSet, name: str, files: RunFiles) -> list[RunCurve]:
    """What methods logged, one curve for each run and group: the mean over the classes of a group, or a number of D_u.

    Args:
        run_set: runs; their split or the arrays of one of them name the classes.
        name: one of `OBSERVED`.
        files: reads the logs.
    """
    classes = split_classes(run_set, files)
    groups = sorted({each.group for each in classes} - {""}, key=group_place)
    members = {group: [label for label, each in enumerate(classes) if each.group == group] for group in groups}

    def logged(folder: Path) -> dict[str, Curve]:
        if name not in (*PSEUDO_LABELS, *PER_CLASS):
            curves = files.curves(folder)
            return {"D_u": curves[name]} if name in curves else {}
        observed = files.observables(folder, len(classes))
        if observed is None:
            return {}
        if name in PSEUDO_LABELS:
            which = PSEUDO_LABELS.index(name)
            return {group: pseudo_label_curves(observed, labels)[which] for group, labels in members.items()}
        if name not in observed.values:
            return {}
        return {group: group_curve(observed, name, labels) for group, labels in members.items()}

    return _curves(run_set, logged)


def _curves(run_set: RunSet, of_run: Callable[[Path], Mapping[str, Curve]]) -> list[RunCurve]:
    """The curves with more than one point that a function finds in the folder of each run, by group, thinned out.

    Logs count batches, curves the optimiser's steps, as tables do: a row may have both kinds of runs.
    """
    return [
        RunCurve(row.label, group, number, thinned(_over_steps(curve, run.result.key.accumulate)))
        for number, row in enumerate(run_set.rows[:MOST_ROWS])
        for run in row.runs
        for group, curve in of_run(run.path.parent).items()
        if len(curve[0]) > 1
    ]


def _over_steps(curve: Curve, accumulate: int) -> Curve:
    return [-(-batches // accumulate) for batches in curve[0]], curve[1]


def thinned(curve: Curve) -> Curve:
    """A curve with the last point of each of `MOST_POINTS` equal parts of its steps."""
    steps, values = curve
    last_of_part = {-(-step * MOST_POINTS // steps[-1]): place for place, step in enumerate(steps)}
    return [steps[place] for place in last_of_part.values()], [values[place] for place in last_of_part.values()]


def pseudo_label_series(run_set: RunSet, files: RunFiles) -> tuple[ClassSeries, ClassSeries] | None:
    """Precision and recall of pseudo labels per class, mean over training seeds (Fig. 3 of the paper); None if unknown.

    Classes are ordered by group, then by descending number of boxes in D_l, or by label where that is not known.
    """
    classes = split_classes(run_set, files)
    order = sorted(
        range(len(classes)),
        key=lambda label: (*group_place(classes[label].group), -(classes[label].labeled_boxes or 0)),
    )
    qualities: tuple[dict[str, tuple[float | None, ...]], ...] = ({}, {})
    for row in run_set.rows[:MOST_ROWS]:
        observed = [files.observables(run.path.parent, len(classes)) for run in row.runs]
        found = [pseudo_label_quality(run) for run in observed if run is not None]
        known = [quality for quality in found if quality is not None]
        if len(known) == len(row.runs):
            for which, values in enumerate(qualities):
                means = np.mean([quality[which] for quality in known], axis=0)
                values[row.label] = tuple(None if np.isnan(means[label]) else float(means[label]) for label in order)
    if not qualities[0]:
        return None
    names, groups = tuple(classes[label].name for label in order), tuple(classes[label].group for label in order)
    described = BOXES if classes[0].labeled_boxes is not None else ORDER.format("label")
    precision, recall = (ClassSeries(names, described, groups, values) for values in qualities)
    return precision, recall


def split_classes(run_set: RunSet, files: RunFiles) -> list[SplitClass]:
    """The classes in label order: of the split's statistics if they still exist, else of the first run with arrays."""
    statistics = split_statistics(run_set, files)
    if statistics is not None:
        return [SplitClass(row["name"], row["group"], row["labeled_boxes"]) for row in statistics["classes"]]
    return [SplitClass(name, group, None) for name, group in _class_groups(run_set, files).items()]


def split_statistics(run_set: RunSet, files: RunFiles) -> dict[str, Any] | None:
    """`statistics.json` of the split that the runs of a set were trained on, None if it no longer exists."""
    first = run_set.rows[0].runs[0].result
    return files.statistics(Path(first.split), first.key.split_digest) if first.split else None


def group_place(group: str) -> tuple[int, str]:
    """Where a class group stands: majority before minority, frequent before rare, others behind by name."""
    return GROUP_ORDER.index(group) if group in GROUP_ORDER else len(GROUP_ORDER), group


def _class_groups(run_set: RunSet, files: RunFiles) -> dict[str, str]:
    """`RunFiles.class_groups` of the first run that has arrays."""
    return next(filter(None, (files.class_groups(run) for row in run_set.rows for run in row.runs)), {})


def _class_means(row: Row, files: RunFiles) -> dict[str, float]:
    """Class name -> AP, without classes that have no ground truth; empty if a run has no usable arrays."""
    collected = [files.class_ap(run) for run in row.runs]
    if not all(collected):
        return {}
    names = [name for name in collected[0] if all(name in found for found in collected)]
    return {name: float(np.mean([found[name] for found in collected])) for name in names}
