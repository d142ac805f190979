"""Values over iterations: AP, and what methods log."""

from collections.abc import Sequence

from cissod_bench.leaderboard.figures.style import GRID, Plot, group_style, group_title, label, row_style, whole_numbers
from cissod_bench.leaderboard.series import RunCurve


def varies(found: Sequence[RunCurve]) -> bool:
    """Whether there is something to see: curves, and not all of them at one and the same value."""
    return len({value for run in found for value in run.curve[1]}) > 1


def iterations(found: Sequence[RunCurve], axis: str, scale: float = 1.0) -> Plot:
    """A value over iterations, multiplied by `scale`: one panel a group, one line a run, in the colour of its row."""
    groups = list(dict.fromkeys(run.group for run in found))
    figure = Plot(7.0 if len(groups) < 3 else 9.0, 3.5)
    panels = figure.panels(1, len(groups), sharey=True)
    named: set[int] = set()
    for axes, group in zip(panels, groups, strict=True):
        for run in (run for run in found if run.group == group):
            steps, values = run.curve[0], [scale * value for value in run.curve[1]]
            (line,) = axes.plot(
                steps,
                values,
                markersize=3,
                linewidth=1.2,
                label=None if run.row in named else label(run.label),
                **row_style(run.row),
            )
            named.add(run.row)
            words = [f"{run.label}, {step:,}: {value:.4g}" for step, value in zip(steps, values, strict=True)]
            figure.hint(line, words)
        if len(groups) > 1:
            axes.set_title(group_title(group), color=group_style(group)[0], fontsize="medium")
        whole_numbers(axes.xaxis, 5 if len(groups) < 3 else 3)
        axes.set_xlabel("iteration")
        axes.grid(**GRID)
    panels[0].set_ylabel(axis)
    panels[0].set_ylim(bottom=min(0.0, *(scale * value for run in found for value in run.curve[1])))
    figure.legend_below()
    return figure
