"""One number per class: AP, and precision and recall of pseudo labels."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cissod_bench.leaderboard.figures.style import GRID, Plot, group_style, group_title, label, row_style, whole_numbers
from cissod_bench.leaderboard.series import ClassSeries

MOST_NAMES = 80
"""Classes whose names stand below the axis; more would overlap."""
FEW_NAMES = 30
"""Classes whose names have room for larger letters, aslant."""


def class_ap(found: ClassSeries) -> Plot:
    """AP of every class, one kind of marker per row."""
    figure = _figure(found, 3.6)
    (axes,) = figure.panels()
    _mark_groups(axes, found.groups, named=True)
    _draw(figure, axes, found, "AP in percent")
    _name_classes(axes, found)
    _legend(figure, found)
    return figure


def pseudo_labels(precision: ClassSeries, recall: ClassSeries) -> Plot:
    """Precision and recall of pseudo labels per class, in two panels (Fig. 3)."""
    figure = _figure(precision, 6.0)
    upper, lower = figure.panels(2, 1, sharex=True)
    _mark_groups(upper, precision.groups, named=True)
    _mark_groups(lower, recall.groups, named=False)
    _draw(figure, upper, precision, "precision in percent")
    _draw(figure, lower, recall, "recall in percent")
    _name_classes(lower, recall)
    _legend(figure, precision)
    return figure


def _figure(found: ClassSeries, height: float) -> Plot:
    count = len(found.names)
    named = max(map(len, found.names), default=0) if count <= MOST_NAMES else 0
    return Plot(7.0 if count <= FEW_NAMES else 9.0, height + 0.05 * min(named, 24))


def _draw(figure: Plot, axes: Axes, found: ClassSeries, axis: str) -> None:
    count = len(found.names)
    size = float(np.clip(1800 / max(count, 1), 5, 22))
    for row, (name, values) in enumerate(found.values.items()):
        known = [(place, 100 * value) for place, value in enumerate(values) if value is not None]
        points = axes.scatter(
            [place + 1 for place, _ in known],
            [value for _, value in known],
            s=size,
            linewidths=0,
            zorder=3,
            label=label(name),
            **row_style(row),
        )
        figure.hint(points, [f"{found.names[place]}, {name}: {value:.1f}" for place, value in known])
    axes.set_xlim(0.3, count + 0.7)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(axis)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)


def _name_classes(axes: Axes, found: ClassSeries) -> None:
    count = len(found.names)
    if count <= MOST_NAMES:
        aslant = count <= FEW_NAMES
        axes.set_xticks(
            range(1, count + 1),
            [label(name, 24) for name in found.names],
            rotation=50 if aslant else 90,
            ha="right" if aslant else "center",
            rotation_mode="anchor" if aslant else "default",
            fontsize=8 if aslant else 5.5,
        )
        axes.tick_params(axis="x", length=2, pad=2)
        for text, group in zip(axes.get_xticklabels(), found.groups, strict=True):
            text.set_color(group_style(group)[0] if group else "#000000")
        axes.set_xlabel(f"classes by {found.order}")
    else:
        whole_numbers(axes.xaxis)
        axes.set_xlabel(f"class index, by {found.order}")


def _mark_groups(axes: Axes, groups: tuple[str, ...], *, named: bool) -> None:
    """A band in the colour of each group behind its classes, which stand side by side, with its name above."""
    start = 1
    for group, members in itertools.groupby(groups):
        count = len(list(members))
        color, _ = group_style(group)
        if group:
            axes.axvspan(start - 0.5, start + count - 0.5, color=color, alpha=0.09, linewidth=0, zorder=0)
        if group and named:
            axes.text(
                start + (count - 1) / 2, 1.01, f"{group_title(group)} ({count})",
                transform=axes.get_xaxis_transform(), color=color, ha="center", va="bottom", fontsize="small",
            )  # fmt: skip
        start += count


def _legend(figure: Plot, found: ClassSeries) -> None:
    figure.legend_below(
        [Line2D([], [], linestyle="none", label=label(name), **row_style(row)) for row, name in enumerate(found.values)]
    )
