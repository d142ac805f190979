"""Plots of the class distribution of a split: the original data against D_l (paper Fig. 4), and D_l against D_u.

They need no display and contain no dates or random ids, so that the same split gives the same picture.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cissod_bench.io import write_bytes
from cissod_bench.splits.fonts import literal, make_readable
from cissod_bench.splits.statistics import GROUP_TITLES

# Okabe and Ito's colours, distinct with every common colour blindness; the markers differ as well.
GROUP_STYLES = {
    "all": ("#000000", "s"), "maj": ("#0072B2", "o"), "min": ("#D55E00", "^"),
    "f": ("#0072B2", "o"), "c": ("#009E73", "s"), "r": ("#D55E00", "^"),
}  # fmt: skip
UNDATED: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What a file says about itself that would change with the day or the program: nothing."""
_ORIGINAL = "#9a9a9a"
_LOWEST = 0.4  # classes without any box are drawn on the lower border
_LEGEND_SIZE = 26


def plot_split(statistics: Mapping[str, Any], title: str) -> Figure:
    """Two panels: boxes per class in the original data against D_l, and in D_u against D_l.

    Args:
        statistics: content of `statistics.json`.
        title: heading.
    """
    figure = _figure(2)
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, statistics, "train_boxes", "original data")
    _panel(right, statistics, "unlabeled_boxes", r"unlabelled images $D_u$")
    left.set_ylabel("boxes per class (log$_{10}$)")
    figure.suptitle(literal(title))
    return figure


def plot_figure_4(splits: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure:
    """One panel per split: boxes per class in the original data against D_l, classes by frequency (paper Fig. 4).

    Args:
        splits: title and content of `statistics.json` of each split.
    """
    figure = _figure(len(splits))
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, (title, statistics) in zip(panels, splits, strict=True):
        _panel(axes, statistics, "train_boxes", "original data")
        axes.set_title(literal(title))
    panels[0].set_ylabel("boxes per class (log$_{10}$)")
    return figure


def picture(figure: Figure, kind: str, *, title: str = "", letters: bool = False) -> bytes:
    """A figure as a file: the same bytes for the same figure.

    Args:
        figure: the figure.
        kind: "png", "svg" or "pdf".
        title: what the file says about itself.
        letters: write letters into an SVG as such, for a page that shows them in a font of its own; else as outlines,
            which look the same everywhere.
    """
    make_readable(figure)
    content = io.BytesIO()
    of_svg = "none" if letters else "path"
    # Fonts of type 42 are TrueType, as publishers ask for.
    with mpl.rc_context({"svg.hashsalt": "cissod-bench", "svg.fonttype": of_svg, "pdf.fonttype": 42}):
        figure.savefig(content, format=kind, dpi=150, metadata={**UNDATED[kind], **({"Title": title} if title else {})})
    return content.getvalue()


def write_figure(figure: Figure, target: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of the file's name."""
    write_bytes(target, picture(figure, target.suffix.removeprefix(".")))


def _figure(panels: int) -> Figure:
    width, height = 5.2 * panels, 4.2
    figure = Figure(figsize=(width, height))
    # Margins in inches; a layout engine would find about the same and take as long as the plot itself.
    figure.subplots_adjust(0.68 / width, 0.52 / height, 1 - 0.1 / width, 1 - 0.36 / height, wspace=0.13)
    FigureCanvasAgg(figure)
    return figure


def _panel(axes: Axes, statistics: Mapping[str, Any], reference: str, label: str) -> None:
    """Reference counts as an area, D_l as a marker per class in the colour of its group; classes by reference count."""
    classes = sorted(statistics["classes"], key=lambda row: (-row[reference], row["name"]))
    index = np.arange(1, len(classes) + 1)
    area = np.array([max(row[reference], _LOWEST) for row in classes], float)
    axes.fill_between(index, area, _LOWEST, step="mid", color=_ORIGINAL, alpha=0.45, linewidth=0, label=label)
    # Markers of 80 classes should be easy to see, those of 1,203 must not hide each other.
    size = float(np.clip(1800 / len(classes), 3, 26))
    for group, (color, marker) in GROUP_STYLES.items():
        if group not in statistics["groups"]:
            continue
        rows = [position for position, row in enumerate(classes) if row["group"] == group]
        boxes = [max(classes[row]["labeled_boxes"], _LOWEST) for row in rows]
        axes.scatter(
            index[rows], boxes, s=size, color=color, marker=marker, linewidths=0, zorder=3,
            label=f"$D_l$, {GROUP_TITLES[group]} ({len(rows)})",
        )  # fmt: skip
    highest = 2 * max(area.max(), *(row["labeled_boxes"] for row in classes))
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST, highest)
    decades = 10.0 ** np.arange(np.floor(np.log10(highest)) + 1)
    labels = ["0", *(f"$10^{{{exponent}}}$" for exponent in range(len(decades)))]
    axes.set_yticks([_LOWEST, *decades], labels)
    axes.set_xlim(0.5, len(classes) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("class index, by frequency")
    axes.grid(axis="y", color="#000000", alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([_LEGEND_SIZE])  # the markers of 1,203 classes are too small to tell their colours
