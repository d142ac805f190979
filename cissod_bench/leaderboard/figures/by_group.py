"""AP by class group: of the rows of a table, and over the labelled fraction."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from cissod_bench.leaderboard.budgets import BudgetCurve
from cissod_bench.leaderboard.comparable import RunSet
from cissod_bench.leaderboard.figures.style import GRID, Plot, drawn_groups, group_style, group_title, label, row_style
from cissod_bench.leaderboard.series import MOST_ROWS

NARROW = 3.0
"""Points of AP that an axis shows at least: smaller differences should look small."""


def by_group(run_set: RunSet, metric: str = "AP") -> Plot:
    """A metric of every row, one panel a group; bars are the 95 % t-interval over training seeds, if several.

    Args:
        run_set: comparable runs.
        metric: one of `evaluation.METRICS`.
    """
    rows = run_set.rows[:MOST_ROWS]
    groups = drawn_groups(run_set.groups)
    names = [label(row.label, 40) for row in rows]
    figure = Plot(1.9 * len(groups) + 0.075 * max(map(len, names)) + 0.3, 0.9 + 0.27 * len(rows))
    places = range(len(rows))
    for axes, group in zip(figure.panels(1, len(groups)), groups, strict=True):
        color, marker = group_style(group)
        axes.margins(x=0.12)
        found = [(place, row.spread(group, metric)) for place, row in enumerate(rows)]
        known = [(place, each) for place, each in found if each is not None]
        values = np.array([100 * each.mean for _, each in known])
        bars = np.array([100 * (each.interval or np.nan) for _, each in known])
        drawn = axes.errorbar(
            values, [place for place, _ in known], xerr=bars, fmt=marker, color=color, markersize=5, capsize=2.5
        )
        if drawn.lines[0] is not None:
            words = [
                f"{rows[place].label}, {group}: {value:.1f}{'' if np.isnan(bar) else f' ± {bar:.1f}'}"
                for (place, _), value, bar in zip(known, values, bars, strict=True)
            ]
            figure.hint(drawn.lines[0], words)
        axes.set_title(group_title(group), color=color, fontsize="medium", y=1.0)
        axes.set_xlabel(f"{metric} in percent")
        low, high = axes.get_xlim()
        if high - low < NARROW:
            low, high = (low + high - NARROW) / 2, (low + high + NARROW) / 2
        axes.set_xlim(max(0.0, low), min(100.0, high))  # the interval of two seeds may be wider than AP can be
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        # One panel has the ticks, and the lines of all rows are one artist: ticks take most of the time of a drawing.
        axes.set_yticks(places if group == groups[0] else [], names if group == groups[0] else [])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", left=False)
        axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), zorder=0.5, **GRID)
        axes.grid(axis="x", **GRID)
        axes.set_axisbelow(True)
    return figure


def budgets(found: Sequence[BudgetCurve]) -> Plot:
    """AP over the labelled fraction, one panel a group, one line a row; bars are one standard deviation."""
    groups = list(dict.fromkeys(curve.group for curve in found))
    figure = Plot(3.6 * len(groups), 3.6)
    labels = list(dict.fromkeys(curve.label for curve in found))
    fractions = sorted({fraction for curve in found for fraction, _ in curve.points})
    for axes, group in zip(figure.panels(1, len(groups)), groups, strict=True):
        for curve in (curve for curve in found if curve.group == group):
            drawn = axes.errorbar(
                [100 * fraction for fraction, _ in curve.points],
                [100 * mean.mean for _, mean in curve.points],
                yerr=[100 * (mean.std or 0.0) for _, mean in curve.points],
                capsize=3,
                label=label(curve.label) if group == groups[0] else None,
                **row_style(labels.index(curve.label)),
            )
            words = [f"{curve.label}, {100 * part:g} %: {100 * mean.mean:.1f}" for part, mean in curve.points]
            if drawn.lines[0] is not None:
                figure.hint(drawn.lines[0], words)
        axes.set_xscale("log")
        axes.set_xticks([100 * each for each in fractions], [f"{100 * each:g}" for each in fractions])
        axes.minorticks_off()
        axes.set_title(group_title(group), color=group_style(group)[0], fontsize="medium")
        axes.set_xlabel("labelled fraction in percent")
        axes.set_ylabel("AP in percent" if group == groups[0] else "")
        axes.set_ylim(bottom=0)
    figure.legend_below()
    return figure
