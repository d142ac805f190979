"""The plots of a report, as figures that need no display and give the same PNG and SVG bytes every time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cissod_bench.evaluation.calibration import Reliability
from cissod_bench.leaderboard.budgets import BudgetCurve
from cissod_bench.leaderboard.series import ClassSeries, RunCurve
from cissod_bench.splits.fonts import literal
from cissod_bench.splits.plot import GROUP_STYLES, picture

# Okabe and Ito's palette, which stays distinct with every common form of colour blindness; shapes differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#999999"
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")  # one more than colours: no pair comes twice


def render(figure: Figure) -> dict[str, bytes]:
    """The figure as {"png": bytes, "svg": bytes}, without dates or random ids."""
    return {kind: picture(figure, kind) for kind in ("png", "svg")}


def class_ap(found: ClassSeries, title: str) -> Figure:
    """AP of every class, classes by frequency, one kind of marker per row."""
    figure, axes = _figure(title)
    _class_points(axes, found)
    axes.set_ylabel("AP in percent")
    axes.legend(frameon=False)
    return figure


def pseudo_labels(precision: ClassSeries, recall: ClassSeries, title: str) -> Figure:
    """Precision and recall of pseudo labels per class, in two panels (Fig. 3)."""
    figure = Figure(figsize=(7.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True)
    upper.set_title(literal(title).replace(": ", "\n", 1), loc="left", fontsize="medium")
    for axes, found, name in ((upper, precision, "precision"), (lower, recall, "recall")):
        axes.spines[["top", "right"]].set_visible(False)
        _class_points(axes, found)
        axes.set_ylabel(f"{name} in percent")
    upper.set_xlabel("")
    upper.legend(frameon=False)
    return figure


def budgets(found: Sequence[BudgetCurve], title: str) -> Figure:
    """AP over the labelled fraction, one panel a group, one line a row; bars are one standard deviation."""
    groups = list(dict.fromkeys(curve.group for curve in found))
    figure = Figure(figsize=(4.2 * len(groups), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(literal(title).replace(": ", "\n", 1), fontsize="medium")
    labels = list(dict.fromkeys(curve.label for curve in found))
    fractions = sorted({fraction for curve in found for fraction, _ in curve.points})
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        for curve in (curve for curve in found if curve.group == group):
            row = labels.index(curve.label)
            axes.errorbar(
                [100 * fraction for fraction, _ in curve.points],
                [100 * mean.mean for _, mean in curve.points],
                yerr=[100 * (mean.std or 0.0) for _, mean in curve.points],
                color=COLORS[row % len(COLORS)],
                marker=MARKERS[row % len(MARKERS)],
                capsize=3,
                label=literal(curve.label) if group == groups[0] else None,
            )
        axes.set_xscale("log")
        axes.set_xticks([100 * each for each in fractions], [f"{100 * each:g}" for each in fractions])
        axes.minorticks_off()
        axes.set_xlabel("labelled fraction in percent")
        axes.set_ylabel(f"AP in percent, {group}")
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def calibration(found: Mapping[str, Reliability], title: str) -> Figure:
    """Precision over the mean score of each bin, one line a group; the diagonal is a calibrated detector."""
    figure, axes = _figure(title, 5.2, 5.2)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    for row, (group, each) in enumerate(found.items()):
        known = each.count > 0
        error = "no detections" if each.error is None else f"error {100 * each.error:.1f}"
        axes.plot(
            100 * each.score[known],
            100 * each.precision[known],
            color=COLORS[row % len(COLORS)],
            marker=MARKERS[row % len(MARKERS)],
            label=literal(f"{group} ({error})"),
            clip_on=False,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("mean score in percent")
    axes.set_ylabel("right detections in percent")
    axes.legend(frameon=False)
    return figure


def _class_points(axes: Any, found: ClassSeries) -> None:
    index = np.arange(1, len(found.names) + 1)
    for row, (label, values) in enumerate(found.values.items()):
        numbers = np.array([np.nan if value is None else 100 * value for value in values])
        axes.scatter(
            index,
            numbers,
            s=18,
            color=COLORS[row % len(COLORS)],
            marker=MARKERS[row % len(MARKERS)],
            label=literal(label),
        )
    if len(found.names) <= 30:
        axes.set_xticks(index, [literal(name) for name in found.names], rotation=60, ha="right", fontsize="small")
    axes.set_xlabel(f"class, by {found.order}")
    axes.set_ylim(bottom=0)


def iterations(found: Sequence[RunCurve], title: str, axis: str, scale: float = 1.0) -> Figure:
    """A value over iterations, multiplied by `scale`: one line for each run and group."""
    figure, axes = _figure(title)
    groups = list(dict.fromkeys(run.group for run in found))
    for run in found:
        axes.plot(
            run.curve[0],
            [scale * value for value in run.curve[1]],
            color=COLORS[run.row % len(COLORS)],
            linestyle=("-", "--", ":", "-.")[groups.index(run.group) % 4],
            marker=MARKERS[run.row % len(MARKERS)],
            markersize=3,
            label=literal(f"{run.label}, {run.group}") if run.first else None,
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel(axis)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def confusion(shares: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """What the objects of each group are mistaken for: one bar per group, shares of its objects.

    Args:
        shares: as returned by `evaluation.tide.group_confusion`.
        title: heading.
    """
    figure, axes = _figure(title, height=1.4 + 0.7 * len(shares))
    outcomes = ["correct", "within", *shares, "background"]
    names = {"correct": "right class", "within": "other class of the group", "background": "background (missed)"}
    colors = dict(zip(outcomes, (COLORS[2], COLORS[5], COLORS[0], COLORS[1], COLORS[3], GREY), strict=False))
    colors["background"] = GREY
    for outcome in outcomes:
        values = [row.get(outcome, 0) / max(sum(row.values()), 1) for row in shares.values()]
        left = [
            sum(row.get(earlier, 0) for earlier in outcomes[: outcomes.index(outcome)]) / max(sum(row.values()), 1)
            for row in shares.values()
        ]
        label = names.get(outcome, f"a class of {outcome}")
        axes.barh(list(shares), values, left=left, color=colors[outcome], edgecolor="white", label=label)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the group's objects")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def error_types(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """TIDE's error types by class group, as shares of the group's errors.

    Args:
        counts: group -> error type -> number.
        title: heading.
    """
    figure, axes = _figure(title)
    types = list(next(iter(counts.values())))
    width = 0.8 / len(counts)
    for index, (group, row) in enumerate(counts.items()):
        color, _ = GROUP_STYLES.get(group, (COLORS[3], "D"))
        total = max(sum(row.values()), 1)
        positions = np.arange(len(types)) + (index - (len(counts) - 1) / 2) * width
        axes.bar(positions, [row[name] / total for name in types], width, color=color, label=f"{group} ({total:,})")
    axes.set_xticks(np.arange(len(types)), types)
    axes.set_ylabel("share of the group's errors")
    axes.legend(frameon=False, title="group (errors)")
    return figure


def _figure(title: str, width: float = 7.0, height: float = 4.2) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(literal(title).replace(": ", "\n", 1), loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
