"""AP by group: one panel a group, rows from the top, bars as wide as the t-interval."""

import statistics
from pathlib import Path

import numpy as np
import pytest

from cissod_bench.leaderboard.comparable import RunSet, comparable_run_sets
from cissod_bench.leaderboard.figures.by_group import by_group
from tests.leaderboard.runs import make_record

APS = {"gbs": (0.30, 0.34, 0.32), "rfs": (0.20, 0.21, 0.25)}
T = 4.302652729911275
"""The 97.5 % quantile of Student's t with 2 degrees of freedom, from a table."""


def run_set(aps: dict[str, tuple[float, ...]], groups: tuple[str, ...] = ("maj", "min")) -> RunSet:
    records = [
        make_record({"all": ap, **dict.fromkeys(groups, ap / 2)}, method=method, train_seed=seed)
        for method, values in aps.items()
        for seed, ap in enumerate(values)
    ]
    (found,) = comparable_run_sets((Path(f"{index}/result.json"), each) for index, each in enumerate(records))
    return found


def test_points_and_bars() -> None:
    figure = by_group(run_set(APS))
    assert [axes.get_title() for axes in figure.axes] == ["all classes", "majority", "minority"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["gbs", "rfs"]
    for axes, scale in zip(figure.axes, (100, 50, 50), strict=True):
        (drawn,) = axes.containers
        means = [scale * statistics.fmean(APS[name]) for name in ("gbs", "rfs")]
        np.testing.assert_allclose(drawn.lines[0].get_xydata(), [[means[0], 0], [means[1], 1]])
        halves = [scale * T * statistics.stdev(APS[name]) / 3**0.5 for name in ("gbs", "rfs")]
        ends = np.array([segment[:, 0] for segment in drawn.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, [[m - h, m + h] for m, h in zip(means, halves, strict=True)])
        low, high = axes.get_ylim()
        assert low > high, "the first row is at the top"
    assert figure.hints["points-0"][0] == f"gbs, all: 32.0 ± {100 * T * 0.02 / 3**0.5:.1f}"


def test_one_seed_has_no_bar() -> None:
    figure = by_group(run_set({"gbs": (0.3,)}))
    segments = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert not any(len(segment) for segment in segments)
    assert figure.hints["points-0"] == ("gbs, all: 30.0",)


def test_the_axis_ends_where_ap_does() -> None:
    figure = by_group(run_set({"gbs": (0.1, 0.9)}))
    assert figure.axes[0].get_xlim() == (0.0, 100.0)


def test_ticks_are_whole_numbers_even_for_small_differences() -> None:
    figure = by_group(run_set({"gbs": (0.3012,), "rfs": (0.3015,)}))
    low, high = figure.axes[0].get_xlim()
    assert high - low == pytest.approx(3.0)
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_lvis_official_groups_would_double_the_panels() -> None:
    figure = by_group(run_set(APS, ("f", "c", "r", "official-f", "official-c", "official-r")))
    assert [axes.get_title() for axes in figure.axes] == ["all classes", "frequent", "common", "rare"]
