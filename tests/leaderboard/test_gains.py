"""The gain over supervised, and the reference that is never ranked."""

from pathlib import Path

import pytest

from cissod_bench.leaderboard.comparable import RunSet, comparable_run_sets
from cissod_bench.leaderboard.gains import gain, gain_groups
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.table import Table
from cissod_bench.leaderboard.tables import run_set_table
from cissod_bench.results.record import Result
from tests.leaderboard.runs import make_record


def record(method: str, seed: int | None, overall: float, rare: float, **key: object) -> Result:
    return make_record(
        {"all": overall, "maj": overall, "min": rare}, method=method, train_seed=seed, method_version=1, **key
    )


def run_set(*records: Result) -> RunSet:
    (found,) = comparable_run_sets((Path(f"{index}/result.json"), each) for index, each in enumerate(records))
    return found


def column(table: Table, name: str) -> list[object]:
    index = [column.name for column in table.columns].index(name)
    return [row[index].value for row in table.rows]


BOUNDED = (
    record("supervised", 0, 0.10, 0.05),
    record("supervised", 1, 0.20, 0.05),
    record("soft-teacher", 0, 0.30, 0.04),
    record("soft-teacher", 1, 0.32, 0.03),
    record("full-labels", 5, 0.90, 0.80),
)


def test_the_gain_is_the_mean_of_the_differences_of_equal_seeds() -> None:
    found = run_set(*BOUNDED)
    teacher = found.rows[0]
    overall, rare = gain(found, teacher, "all", "AP"), gain(found, teacher, "min", "AP")
    assert overall is not None
    assert rare is not None
    assert overall.mean == pytest.approx((0.20 + 0.12) / 2)
    assert overall.std == pytest.approx(0.08 / 2**0.5), "of the differences, smaller than that of either row here"
    assert rare.mean == pytest.approx(-0.015)
    table = run_set_table(found)
    assert column(table, "all_gain") == [pytest.approx(0.16), None, None]
    assert [each.over for each in table.columns if each.name.endswith("_gain")] == ["gain over supervised"] * 2
    assert "Gain: difference to the supervised run with the same training seed, before rounding." in table.caption


def test_only_seeds_that_both_have_count() -> None:
    found = run_set(record("supervised", 0, 0.1, 0.1), record("rfs", 0, 0.2, 0.2), record("rfs", 1, 0.9, 0.9))
    rfs = next(row for row in found.rows if row.method == "rfs")
    overall = gain(found, rfs, "all", "AP")
    assert overall is not None
    assert (overall.mean, overall.std, overall.count) == (pytest.approx(0.1), None, 1)


def test_no_column_without_a_supervised_run_of_the_same_table() -> None:
    alone = run_set(record("rfs", 0, 0.2, 0.2))
    assert gain_groups(alone) == ()
    assert not any(each.name.endswith("_gain") for each in run_set_table(alone).columns)
    two = comparable_run_sets(
        (Path(f"{index}/result.json"), each)
        for index, each in enumerate((record("rfs", 0, 0.2, 0.2), record("supervised", 0, 0.1, 0.1, iterations=9)))
    )
    assert [gain_groups(each) for each in two if each.rows[0].method == "rfs"] == [()]


@pytest.mark.parametrize("seeds", [(None,), (0, 0)])
def test_runs_of_no_certain_seed_are_no_reference(seeds: tuple[int | None, ...]) -> None:
    many = [record("supervised", seed, 0.1 + index / 100, 0.1) for index, seed in enumerate(seeds)]
    assert gain_groups(run_set(*many, record("rfs", 0, 0.2, 0.2))) == ()


def test_the_reference_is_never_ranked_whatever_its_seeds() -> None:
    found = run_set(*BOUNDED)
    assert [(row.method, row.ranked, row.problem) for row in found.rows] == [
        ("soft-teacher", True, ""), ("supervised", True, ""), ("full-labels", False, ""),
    ]  # fmt: skip
    table = run_set_table(found)
    assert column(table, "rank") == [1, 2, None]
    places = [table.place(row, 3) for row in range(3)]
    assert places == [1, 2, None], "the best AP of the ranked rows is marked, not the reference's"
    assert any("full-labels is trained on all training labels" in note for note in table.notes)


def test_a_gain_over_fewer_seeds_says_so() -> None:
    found = run_set(
        *(record("gbs", seed, 0.3 + seed / 100, 0.1) for seed in (0, 1, 2)), record("supervised", 0, 0.2, 0.1)
    )
    assert "gbs: gain over 1 of 3 training seeds, those of supervised." in run_set_table(found).notes
    both = run_set(*BOUNDED)
    assert not any("gain over" in note for note in run_set_table(both).notes)


def test_the_reference_is_in_no_mean_over_splits() -> None:
    records = [
        record(method, 0, value + more, value, split_digest=digit * 64)
        for digit, more in (("a", 0.0), ("b", 0.01))
        for method, value in (("rfs", 0.2), ("full-labels", 0.9))
    ]
    sets = comparable_run_sets((Path(f"{index}/result.json"), each) for index, each in enumerate(records))
    (table,) = over_splits(sets)
    assert column(table, "method") == ["rfs"]
