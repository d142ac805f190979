"""Why detections are wrong, and how far their scores can be believed, by class group."""

from collections.abc import Mapping

import numpy as np

from cissod_bench.evaluation.calibration import Reliability
from cissod_bench.leaderboard.figures.style import GREY, GRID, Plot, group_style, group_title

RIGHT, WITHIN = "#d9d9d9", "#8c8c8c"
"""Greys for what does not cross the border of a group, so that its colours show what does."""


def calibration(found: Mapping[str, Reliability]) -> Plot:
    """Precision over the mean score of each bin, one line a group; the diagonal is a calibrated detector."""
    figure = Plot(4.8, 4.8)
    (axes,) = figure.panels()
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    for group, each in found.items():
        known = each.count > 0
        error = "no detections" if each.error is None else f"error {100 * each.error:.1f}"
        color, marker = group_style(group)
        axes.plot(
            100 * each.score[known],
            100 * each.precision[known],
            color=color,
            marker=marker,
            label=f"{group_title(group)} ({error})",
            clip_on=False,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("mean score in percent")
    axes.set_ylabel("right detections in percent")
    axes.legend(frameon=False)
    return figure


def confusion(shares: Mapping[str, Mapping[str, int]]) -> Plot:
    """What the objects of each group are mistaken for: one bar per group, shares of its objects.

    Args:
        shares: as returned by `evaluation.tide.group_confusion`.
    """
    figure = Plot(7.0, 1.4 + 0.45 * len(shares))
    (axes,) = figure.panels()
    outcomes = ["correct", "within", *shares, "background"]
    names = {"correct": "right class", "within": "another class of its group", "background": "missed"}
    colors = {"correct": RIGHT, "within": WITHIN, "background": "#ffffff"}
    totals = [max(sum(row.values()), 1) for row in shares.values()]
    left = np.zeros(len(shares))
    for outcome in outcomes:
        values = [100 * row.get(outcome, 0) / total for row, total in zip(shares.values(), totals, strict=True)]
        axes.barh(
            [group_title(group) for group in shares],
            values,
            left=left,
            height=0.65,
            color=colors.get(outcome, group_style(outcome)[0]),
            edgecolor=GREY if outcome == "background" else "white",
            hatch="///" if outcome == "background" else None,
            linewidth=0.6,
            label=names.get(outcome, f"a {group_title(outcome)} class"),
        )
        left += values
    axes.set_xlim(0, 100)
    axes.set_xlabel("objects of the group in percent")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def error_types(counts: Mapping[str, Mapping[str, int]]) -> Plot:
    """TIDE's error types by class group, as shares of the group's errors.

    Args:
        counts: group -> error type -> number.
    """
    figure = Plot(7.0, 3.4)
    (axes,) = figure.panels()
    types = list(next(iter(counts.values())))
    width = 0.8 / len(counts)
    for index, (group, row) in enumerate(counts.items()):
        total = max(sum(row.values()), 1)
        positions = np.arange(len(types)) + (index - (len(counts) - 1) / 2) * width
        shares = [100 * row[name] / total for name in types]
        axes.bar(
            positions, shares, 0.92 * width, color=group_style(group)[0], label=f"{group_title(group)} ({total:,})"
        )
    axes.set_xticks(np.arange(len(types)), types)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)
    axes.set_ylabel("errors of the group in percent")
    axes.legend(frameon=False, title="group (errors)")
    return figure
