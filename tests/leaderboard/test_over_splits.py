"""Means over splits: what is one row, and what is left out of it."""

import statistics
from pathlib import Path

import msgspec
import pytest

from cissod_bench.leaderboard.comparable import comparable_run_sets
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.report import make_report, write_report
from tests.leaderboard.runs import make_record

APS = {("soft-teacher", 0): (0.20, 0.22), ("soft-teacher", 1): (0.30, 0.34), ("soft-teacher", 2): (0.25, 0.25)}


def ap(value):
    return {"all": value, "maj": value + 0.1, "min": value - 0.1}


def on_split(split, value, **key):
    record = make_record(ap(value), split_digest=f"{split}" * 64, split_seed=split, **key)
    return msgspec.structs.replace(record, annotations_digest=f"{split}" * 64)  # a fold has its own validation images


def run_sets(*records):
    return comparable_run_sets((Path(f"runs/{index}/result.json"), record) for index, record in enumerate(records))


def records():
    return [
        on_split(split, value, method=method, train_seed=seed)
        for (method, split), values in APS.items()
        for seed, value in enumerate(values)
    ]


def test_the_mean_is_over_splits_with_seeds_inside():
    (table,) = over_splits(run_sets(*records()))
    means = [statistics.fmean(values) for values in APS.values()]
    (row,) = table.rows
    assert [cell.value for cell in row[:4]] == [1, "soft-teacher", 3, "2"]
    assert row[4].value == pytest.approx(statistics.fmean(means))
    assert row[4].std == pytest.approx(statistics.stdev(means))
    assert "3 splits" in table.title
    assert table.notes == ("Splits: 000000000000 (seed 0), 111111111111 (seed 1), 222222222222 (seed 2).",)


def test_a_method_that_lacks_a_split_is_left_out_and_named():
    rest = [on_split(split, 0.9, method="gbs", train_seed=seed) for split in (0, 1) for seed in (0, 1)]
    (table,) = over_splits(run_sets(*records(), *rest))
    assert [row[1].value for row in table.rows] == ["soft-teacher"]
    assert "gbs: has a mean on 2 of 3 splits, so it is left out." in table.notes


def test_sets_that_differ_otherwise_are_not_averaged():
    assert over_splits(run_sets(on_split(0, 0.2), on_split(1, 0.2, schedule="paper"))) == []
    one, other = make_record(), msgspec.structs.replace(make_record(), annotations_digest="f" * 64)
    assert over_splits(run_sets(one, other)) == [], "one split with two ground truths"


def test_the_report_has_both_the_rows_of_each_split_and_their_mean(run_folder, tmp_path):
    for split in (0, 1):
        folder = run_folder(str(split), ap(0.2 + 0.1 * split), split_digest=f"{split}" * 64, split_seed=split)
    write_report(make_report([folder.parent]), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 1 | soft-teacher | 2 | 1 | 25.0 ± 7.1 | 35.0 ± 7.1 | 15.0 ± 7.1 |" in text
    for title in ("split_seed 0", "split_seed 1", ": 2 splits"):
        assert title in text
