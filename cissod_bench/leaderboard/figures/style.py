"""How the figures of a report look: a row has its colour and marker in all of them, and so has a class group."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cissod_bench.errors import one_line
from cissod_bench.leaderboard.run_files import OFFICIAL
from cissod_bench.splits.fonts import literal, make_readable
from cissod_bench.splits.plot import GROUP_STYLES, picture
from cissod_bench.splits.statistics import GROUP_TITLES

# Okabe and Ito's palette, which stays distinct with every common form of colour blindness; shapes differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#999999"
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")  # one more than colours: no pair comes twice
GRID: dict[str, Any] = {"color": "#000000", "alpha": 0.13, "linewidth": 0.6}
KINDS = ("png", "svg", "pdf")
LEGEND_LINE = 0.17
"""Inches that a line of a legend takes."""
LONGEST_LABEL = 60
"""Characters of a label: more would leave no room for the data."""


class Plot(Figure):
    """A figure without a display, which knows the words for its points.

    Attributes:
        hints: the words for the points of an artist, by the id that it has in an SVG; a page shows them.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)
        self.hints: dict[str, tuple[str, ...]] = {}

    def hint(self, artist: Artist, texts: Iterable[str]) -> None:
        """Say what each point of an artist is."""
        name = f"points-{len(self.hints)}"
        artist.set_gid(name)
        self.hints[name] = tuple(one_line(text) for text in texts)

    def panels(self, rows: int = 1, columns: int = 1, **shared: Any) -> list[Axes]:
        """Axes without a frame at the top and on the right."""
        found = list(self.subplots(rows, columns, squeeze=False, **shared).flat)
        for axes in found:
            axes.spines[["top", "right"]].set_visible(False)
        return found

    def legend_below(self, handles: Sequence[Artist] | None = None) -> None:
        """One legend for all panels, below them, in as many columns as fit; the figure grows with its lines."""
        known = handles if handles is not None else [each for axes in self.axes for each in _labelled(axes)]
        longest = max((len(str(each.get_label())) for each in known), default=0)
        if known:
            columns = max(1, min(4, int(14 * self.get_figwidth()) // (longest + 6)))
            lines = -(-len(known) // columns)
            columns = -(-len(known) // lines)  # lines of the same length
            self.set_figheight(self.get_figheight() + LEGEND_LINE * max(0, lines - 2))
            self.legend(handles=known, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def settle(figure: Figure) -> None:
    """Choose fonts and places once, instead of again for every kind of file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        make_readable(figure)
        engine.execute(figure)
        # "none" would leave an engine that does nothing, for which savefig draws every figure twice.
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)


def render(figure: Figure, title: str) -> dict[str, bytes]:
    """The figure as {"png": bytes, "svg": bytes, "pdf": bytes}, without dates or random ids.

    Args:
        figure: the figure.
        title: what it shows; the files name it as their title, so that the figure itself needs no heading.
    """
    settle(figure)
    return {kind: picture(figure, kind, title=one_line(title)) for kind in KINDS}


def row_style(row: int) -> dict[str, Any]:
    """Colour and marker of a row of a table."""
    return {"color": COLORS[row % len(COLORS)], "marker": MARKERS[row % len(MARKERS)]}


def group_style(group: str) -> tuple[str, str]:
    """Colour and marker of a class group."""
    return GROUP_STYLES.get(group.removeprefix(OFFICIAL), (COLORS[3], "D"))


def group_title(group: str) -> str:
    """The name of a class group in a figure."""
    plain = group.removeprefix(OFFICIAL)
    known = {"all": "all classes", **GROUP_TITLES}
    return f"{'official: ' if plain != group else ''}{known[plain]}" if plain in known else label(group)


def drawn_groups(groups: Iterable[str]) -> list[str]:
    """The groups that figures show: without LVIS's official ones, which would double their number."""
    return [group for group in groups if not group.startswith(OFFICIAL)]


def label(text: str, longest: int = LONGEST_LABEL) -> str:
    """A text from a record as a label: as it is, without its middle where it is too long."""
    text = one_line(text)
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]}…{text[-longest // 4 :]}"
    return literal(text)


def whole_numbers(axis: Any, most: int = 5) -> None:
    """Ticks at whole numbers, with commas between thousands; `most` of them and one more."""
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=2))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _labelled(axes: Axes) -> list[Artist]:
    return [each for each in axes.get_legend_handles_labels()[0] if isinstance(each, Artist)]
