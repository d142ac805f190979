"""Values over iterations: one panel a group, and no figure of what never changes."""

import numpy as np
import pytest

from cissod_bench.leaderboard.figures.over_iterations import iterations, varies
from cissod_bench.leaderboard.series import RunCurve

STEPS = [9_000, 90_000, 180_000]


def curves(values: dict[str, list[float]]) -> list[RunCurve]:
    return [RunCurve("gbs", group, 0, (STEPS, of_group)) for group, of_group in values.items()]


def test_each_group_has_a_panel_on_one_scale() -> None:
    figure = iterations(curves({"all": [0.1, 0.2, 0.3], "maj": [0.2, 0.5, 0.6]}), "AP in percent", 100)
    overall, majority = figure.axes
    assert (overall.get_title(), majority.get_title()) == ("all classes", "majority")
    np.testing.assert_allclose(overall.get_lines()[0].get_ydata(), [10, 20, 30])
    assert overall.get_ylim() == majority.get_ylim()
    assert overall.get_ylim()[0] == 0
    assert overall.get_ylim()[1] > 60


def test_every_row_is_in_the_legend_once() -> None:
    """Also one whose first run has no curve, or none of the first group."""
    lines = [
        *curves({"maj": [0.1, 0.2, 0.3], "min": [0.1, 0.2, 0.3]}),
        *curves({"maj": [0.2, 0.2, 0.3], "min": [0.1, 0.3, 0.3]}),
        RunCurve("rfs", "min", 1, (STEPS, [0.3, 0.2, 0.1])),
    ]
    (legend,) = iterations(lines, "recall").legends
    assert [text.get_text() for text in legend.get_texts()] == ["gbs", "rfs"]


def test_iterations_are_whole_numbers() -> None:
    figure = iterations(curves({"D_u": [0.1, 0.2, 0.3]}), "part")
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == "", "one panel needs no name"
    assert "40,000" in [text.get_text() for text in figure.axes[0].get_xticklabels()]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [({}, False), ({"maj": [1.0] * 3, "min": [1.0] * 3}, False), ({"maj": [1.0] * 3, "min": [2.0] * 3}, True)],
)
def test_a_constant_is_not_drawn(values: dict[str, list[float]], drawn: bool) -> None:
    assert varies(curves(values)) is drawn
