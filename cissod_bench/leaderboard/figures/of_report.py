"""Which figures a report has: what there is data for, and nothing that would be a flat line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from cissod_bench.leaderboard.budgets import budget_curves
from cissod_bench.leaderboard.comparable import RunSet
from cissod_bench.leaderboard.figures.by_group import budgets, by_group
from cissod_bench.leaderboard.figures.over_iterations import iterations, varies
from cissod_bench.leaderboard.figures.per_class import class_ap, pseudo_labels
from cissod_bench.leaderboard.names import file_name
from cissod_bench.leaderboard.series import OBSERVED, Charts
from cissod_bench.splits.plot import plot_figure_4


@dataclass(frozen=True)
class Picture:
    """A figure of a report.

    Attributes:
        name: of its files, without an ending.
        heading: what it shows, where it is clear of which runs.
        title: the same with the runs.
        figure: the figure.
    """

    name: str
    heading: str
    title: str
    figure: Figure


def pictures_of_sets(run_sets: Sequence[RunSet], charts: Sequence[Charts], metric: str) -> list[list[Picture]]:
    """The figures of each set of runs that has charts; those of a split stand with its first set.

    Args:
        run_sets: sets of comparable runs.
        charts: the data of the first of them.
        metric: of the figure by group.
    """
    drawn: set[str] = set()
    return [list(_pictures(run_set, of_set, metric, drawn)) for run_set, of_set in zip(run_sets, charts, strict=False)]


def pictures_of_budgets(run_sets: Sequence[RunSet]) -> list[Picture]:
    """AP over the labelled fraction, for sets that differ in it alone."""
    found = []
    for first, curves in budget_curves(run_sets):
        title = f"AP over the labelled fraction: {first.task}, {first.length}"
        found.append(Picture(f"{first.name}-budgets", title, title, budgets(curves)))
    return found


def _pictures(run_set: RunSet, charts: Charts, metric: str, drawn: set[str]) -> Iterator[Picture]:
    def made(what: str, heading: str, figure: Figure) -> Picture:
        return Picture(f"{run_set.name}-{what}", heading, f"{heading}: {run_set.title}", figure)

    bars = "; bars: 95 % t-interval over training seeds" if any(len(row.runs) > 1 for row in run_set.rows) else ""
    yield made("groups", f"{metric} by group{bars}", by_group(run_set, metric))
    if charts.classes is not None:
        yield made("classes", "AP per class, mean over training seeds", class_ap(charts.classes))
    if varies(charts.iterations):
        yield made("iterations", "AP over iterations", iterations(charts.iterations, "AP in percent", 100))
    if charts.pseudo_labels is not None:
        heading = "Precision and recall of pseudo labels per class, last third of the runs (Fig. 3 of the paper)"
        yield made("pseudo-labels", heading, pseudo_labels(*charts.pseudo_labels))
    for what, (words, axis, scale) in OBSERVED.items():
        if varies(charts.observed[what]):
            yield made(what, f"{words} over iterations", iterations(charts.observed[what], axis, scale))
    digest = str(run_set.fields["split_digest"])
    if charts.statistics is not None and digest not in drawn:
        drawn.add(digest)
        name = f"{file_name(f'{run_set.task}-{digest[:8]}')}-distribution"
        title = f"Class distribution of {run_set.task}, split {digest[:12]} (Fig. 4 of the paper)"
        yield Picture(name, title, title, plot_figure_4([(run_set.task, charts.statistics)]))
