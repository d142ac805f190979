"""Means over splits: what is one row, and what is left out of it."""

import statistics
from pathlib import Path

import msgspec
import pytest

from cissod_bench.leaderboard.comparable import comparable_run_sets
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.results.environment import Git
from tests.leaderboard.runs import make_record

APS = {("soft-teacher", 0): (0.20, 0.22), ("soft-teacher", 1): (0.30, 0.34), ("soft-teacher", 2): (0.25, 0.25)}


def ap(value):
    return {"all": value, "maj": value + 0.1, "min": value - 0.1}


def on_split(split, value, **key):
    return make_record(ap(value), split_digest=f"{split}" * 64, split_seed=split, **key)


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


def made(record, **fields):
    return msgspec.structs.replace(record, **fields)


def by_options(*changes, **key):
    """A record on each split, with other split options."""
    rule = make_record().split_options
    return [
        made(on_split(split, 0.2 + split / 10, **key), split_options={**rule, **change})
        for split, change in enumerate(changes)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        ({"fraction": 0.01}, {"fraction": 0.1}),
        ({"floor": 1}, {"floor": 10}),
        ({}, {"imported": True}),
        ({"fold": [0, 5]}, {"fold": [1, 4]}),
        ({"fold": [0, 5]}, {}),
        ({"imported": True, "minority_objects": "drop"}, {"imported": True, "minority_objects": "keep"}),
    ],
)
def test_splits_that_were_made_otherwise_are_not_averaged(changes):
    """Of 1 % and 10 %, of a list and a seed, of a fold and the whole data."""
    assert over_splits(run_sets(*by_options(*changes))) == []


def test_what_is_not_known_of_a_split_is_not_averaged():
    one, other = by_options({}, {})
    assert len(over_splits(run_sets(one, other))) == 1
    assert over_splits(run_sets(made(one, split_options=None), made(other, split_options=None))) == []
    assert over_splits(run_sets(made(one, data={**one.data, "train_images": 53}), other)) == []
    assert over_splits(run_sets(made(one, annotations_digest="f" * 64), other)) == [], "other validation images"


def test_imported_lists_are_averaged_where_they_are_as_long():
    one, other = by_options({"imported": True}, {"imported": True})
    (table,) = over_splits(run_sets(one, other))
    assert "labelled 116 images" in table.title
    assert over_splits(run_sets(one, made(other, data={**other.data, "labeled_images": 60}))) == []


def test_folds_have_validation_images_of_their_own():
    rule = make_record().split_options
    folds = [
        made(
            make_record(ap(0.2 + fold / 10), split_digest=f"{fold}" * 64),
            annotations_digest=f"{fold}" * 64,
            label_fraction=0.1,
            split_options={**rule, "fold": [fold, 5]},
        )
        for fold in range(3)
    ]
    (table,) = over_splits(run_sets(*folds))
    assert table.title.endswith("labelled 10 %: 3 of 5 folds")


def test_other_defaults_are_another_row():
    """One mean of theta_min 0.5 and 0.9 had stood as plain gbs."""
    low, high = ({"theta_min": value} for value in (0.5, 0.9))
    one = [on_split(split, 0.2 + split / 10, resolved_options=low) for split in (0, 1)]
    two = [on_split(split, 0.4 + split / 10, resolved_options=high) for split in (0, 1)]
    (table,) = over_splits(run_sets(*one, *two))
    assert [row[1].value for row in table.rows] == ["soft-teacher, theta_min=0.9", "soft-teacher, theta_min=0.5"]
    (table,) = over_splits(run_sets(one[0], two[1]))
    assert table.rows == ()
    assert sum("has a mean on 1 of 2 splits" in note for note in table.notes) == 2


def test_two_tables_of_one_task_have_names_of_their_own():
    small = [made(each, label_fraction=0.01) for each in by_options({"fraction": 0.01}, {"fraction": 0.01})]
    large = [made(on_split(split, 0.5 + split / 20), label_fraction=0.1) for split in (2, 3)]
    odd = [on_split(split, 0.6 + split / 20) for split in (4, 5)]
    odd = [made(each, split_options={**each.split_options, "floor": 3}, label_fraction=0.1) for each in odd]
    tables = over_splits(run_sets(*small, *large, *odd))
    assert len({table.title for table in tables}) == len({table.name for table in tables}) == 3
    assert any("labelled 1 %: 2 splits" in table.title for table in tables)
    assert not any("split_seed" in table.name or "split-seed" in table.name for table in tables)


def test_marks_of_the_runs_stay_and_equal_numbers_are_named():
    dirty = made(on_split(0, 0.2), git=Git("c" * 40, dirty=True), environment={"torch": "1.9.0"})
    (table,) = over_splits(run_sets(dirty, on_split(1, 0.3)))
    assert table.rows[0][1].value == "soft-teacher‡"
    assert any("uncommitted changes" in note for note in table.notes)
    assert any("torch: 1.9.0" in note for note in table.notes)
    (table,) = over_splits(run_sets(on_split(0, 0.2), on_split(1, 0.2)))
    assert table.rows == ()
    assert any("the same numbers to the last bit on several splits" in note for note in table.notes)


def test_the_report_has_both_the_rows_of_each_split_and_their_mean(run_folder, tmp_path):
    for split in (0, 1):
        values = {"all": 0.2 + 0.1 * split, "maj": 0.3 + 0.1 * split, "min": 0.1 * split}
        folder = run_folder(str(split), values, split_digest=f"{split}" * 64, split_seed=split)
    write_report(make_report([folder.parent]), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 1 | soft-teacher | 2 | 1 | 25.0 ± 7.1 | 35.0 ± 7.1 | 5.0 ± 7.1 |" in text
    for title in ("split_seed 0", "split_seed 1", ": 2 splits"):
        assert title in text
