"""AP over the label budget: which runs make a point, and what is drawn."""

import statistics
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cissod_bench.leaderboard.budgets import budget_curves
from cissod_bench.leaderboard.comparable import RunSet, comparable_run_sets
from cissod_bench.leaderboard.figures.by_group import budgets
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.results.record import Result, write_result
from cissod_bench.tasks.registry import TASKS
from tests.leaderboard.runs import make_record

APS = {(0.01, 0): (0.10, 0.14), (0.1, 0): (0.20, 0.22), (0.1, 1): (0.26, 0.24)}
"""Fraction and split seed -> AP of two training seeds."""


def record(fraction: float | None, split: int, value: float, **key: object) -> Result:
    groups = {"all": value, "maj": value + 0.02, "min": value - 0.04}
    digest = f"{round(1000 * (fraction or 0)):03}{split}" * 16
    made = make_record(groups, split_digest=digest, split_seed=split, **key)
    options = {**TASKS["shapes"].split_options, "fraction": fraction, "label_budget": True}
    return msgspec.structs.replace(made, label_fraction=fraction, split_options=options)


def records(method: str = "gbs", add: float = 0.0) -> list[Result]:
    return [
        record(fraction, split, value + add, train_seed=seed, method=method)
        for (fraction, split), values in APS.items()
        for seed, value in enumerate(values)
    ]


def run_sets(*given: Result) -> list[RunSet]:
    return comparable_run_sets((Path(f"runs/{index}/result.json"), each) for index, each in enumerate(given))


def test_a_point_is_the_mean_over_training_seeds_and_splits() -> None:
    ((_, curves),) = budget_curves(run_sets(*records(), *records("rfs", 0.1)))
    assert sorted((curve.label, curve.group) for curve in curves) == [
        ("gbs", "all"), ("gbs", "min"), ("rfs", "all"), ("rfs", "min"),
    ]  # fmt: skip
    (gbs,) = [curve for curve in curves if (curve.label, curve.group) == ("gbs", "all")]
    few, many = APS[0.01, 0], APS[0.1, 0] + APS[0.1, 1]
    assert [fraction for fraction, _ in gbs.points] == [0.01, 0.1]
    for (_, point), values in zip(gbs.points, (few, many), strict=True):
        assert point.mean == pytest.approx(statistics.fmean(values))
        assert point.std == pytest.approx(statistics.stdev(values))


def test_means_over_splits_are_not_over_budgets() -> None:
    (table,) = over_splits(run_sets(*records()))
    splits = [column.name for column in table.columns].index("splits")
    assert [row[splits].value for row in table.rows] == [2], "the two splits of a tenth"


@pytest.mark.parametrize(
    "given",
    [
        [record(0.1, 0, 0.2), record(0.1, 1, 0.3)],
        [record(None, 0, 0.2), record(0.1, 1, 0.3)],
        [record(0.01, 0, 0.2), record(0.1, 1, 0.3, iterations=9)],
        [record(0.01, 0, 0.2, method="rfs"), record(0.1, 1, 0.3)],
    ],
)
def test_one_budget_or_other_settings_have_no_curve(given: list[Result]) -> None:
    assert budget_curves(run_sets(*given)) == []


def test_the_plot_has_points_and_bars_in_percent() -> None:
    ((_, curves),) = budget_curves(run_sets(*records()))
    figure = budgets(curves)
    overall, rare = figure.axes
    assert (overall.get_title(), rare.get_title()) == ("all classes", "minority")
    assert overall.get_xscale() == "log"
    (drawn,) = overall.containers
    means = [statistics.fmean(APS[0.01, 0]), statistics.fmean(APS[0.1, 0] + APS[0.1, 1])]
    np.testing.assert_allclose(drawn[0].get_xydata(), [[1, 100 * means[0]], [10, 100 * means[1]]])
    bars = [segment[:, 1] for segment in drawn[2][0].get_segments()]
    spread = 100 * statistics.stdev(APS[0.01, 0])
    np.testing.assert_allclose(bars[0], [100 * means[0] - spread, 100 * means[0] + spread])


def test_the_report_draws_it(tmp_path: Path) -> None:
    for index, each in enumerate(records()):
        (tmp_path / "runs" / str(index)).mkdir(parents=True)
        write_result(tmp_path / "runs" / str(index) / "result.json", each)
    files = write_report(make_report([tmp_path / "runs"]), tmp_path / "report")
    (plot,) = [path for path in files if path.name.endswith("-budgets.png")]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plot.name in (tmp_path / "report" / "report.md").read_text()
