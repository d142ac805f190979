"""Which runs share a table and which are averaged; every refusal has its case."""

import json
import math
import statistics
from pathlib import Path

import msgspec
import pytest
from scipy import stats

from cissod_bench.leaderboard.comparable import comparable_run_sets, differences, spread, t_quantile
from cissod_bench.leaderboard.names import file_name
from cissod_bench.leaderboard.tables import run_set_table
from cissod_bench.results.environment import Git
from cissod_bench.results.record import Group, load_result, write_result
from tests.leaderboard.runs import make_record


def sections_of(*records):
    return comparable_run_sets((Path(f"runs/{index}/result.json"), record) for index, record in enumerate(records))


def ap(value):
    return {"all": value, "maj": value, "min": value}


@pytest.mark.parametrize("values", [[0.1, 0.3], [0.21, 0.22, 0.26], [0.5] * 4, [0.1, 0.2, 0.25, 0.4, 0.45]])
def test_spread_against_the_reference_libraries(values):
    found = spread(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.std == pytest.approx(statistics.stdev(values))
    if found.std > 0:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=stats.sem(values))
        assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))


def test_one_value_has_no_spread():
    assert spread([0.25]) == spread((0.25,))
    assert (spread([0.25]).std, spread([0.25]).interval, spread([0.25]).count) == (None, None, 1)


def test_the_t_interval_covers_as_often_as_it_says():
    """95 % of the intervals from three normal draws hold the true mean (2,000 trials: +- 1 point is 2 sigma)."""
    import numpy as np

    draws = np.random.default_rng(0).normal(0.3, 0.02, (2000, 3)).tolist()
    covered = sum(abs(spread(values).mean - 0.3) <= spread(values).interval for values in draws)
    assert 0.94 < covered / 2000 < 0.96


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"split_digest": "e" * 64}, "split_digest"),
        ({"schedule": "paper"}, "schedule: short here, paper there"),
        ({"iterations": 900}, "iterations: 800 here, 900 there"),
        ({"shortened": True}, "shortened"),
        ({"evaluator": "pycocotools"}, "evaluator: hotcoco here, pycocotools there"),
        ({"protocol": 2}, "protocol: 1 here, 2 there"),
        ({"detector": "r50-fpn"}, "detector"),
        ({"max_detections": 300}, "max_detections"),
        ({"rules": "lvis"}, "rules"),
        ({"split_seed": 5}, "split_seed"),
    ],
)
def test_what_is_not_comparable_stands_apart_and_says_why(change, named):
    here, there = make_record(), make_record(train_seed=1, **change)
    found = sections_of(here, there)
    assert len(found) == 2
    assert all(len(run_set.rows) == 1 and len(run_set.rows[0].runs) == 1 for run_set in found)
    one = next(run_set for run_set in found if run_set.fields == sections_of(here)[0].fields)
    other = next(run_set for run_set in found if run_set is not one)
    assert any(named in difference for difference in differences(one, other))


@pytest.mark.parametrize(
    ("task", "schedule", "title"),
    [
        ("coco-split1", "paper", "coco-split1 (protocol 1), paper schedule, 800 iterations"),
        ("shapes", "paper", "shapes (protocol 1), 800 iterations"),
        ("shapes", "short", "shapes (protocol 1), short schedule, 800 iterations"),
    ],
)
def test_only_a_task_of_the_paper_has_its_schedule(task, schedule, title):
    (found,) = sections_of(make_record(task=task, schedule=schedule))
    assert found.title == title


def test_other_class_groups_or_ground_truth_stand_apart():
    record = make_record()
    regrouped = msgspec.structs.replace(record, groups=record.groups | {"min": Group(9, 0)})
    elsewhere = msgspec.structs.replace(record, annotations_digest="f" * 64)
    assert "class_groups" in differences(*sections_of(record, regrouped))[0]
    assert "ground_truth" in differences(*sections_of(record, elsewhere))[0]


def test_replicates_are_averaged_and_rows_ranked():
    found = sections_of(
        *(make_record(ap(value), train_seed=seed) for seed, value in enumerate((0.1, 0.2, 0.3))),
        *(make_record(ap(value), train_seed=seed, method="rfs") for seed, value in enumerate((0.3, 0.3, 0.36))),
    )
    assert len(found) == 1
    rfs, teacher = found[0].rows
    assert (rfs.method, teacher.method) == ("rfs", "soft-teacher")
    assert teacher.seeds == (0, 1, 2)
    assert teacher.spread("min", "AP").mean == pytest.approx(0.2)
    assert teacher.spread("min", "AP").std == pytest.approx(0.1)
    assert found[0].notes == ()


def test_a_missing_seed_is_never_averaged_over():
    found = sections_of(
        *(make_record(ap(0.1), train_seed=seed) for seed in (0, 1, 2)),
        *(make_record(ap(0.9), train_seed=seed, method="rfs") for seed in (0, 2)),
    )
    rows = found[0].rows
    assert [row.label for row in rows] == ["soft-teacher", "rfs, seed 0", "rfs, seed 2"]
    assert [bool(row.problem) for row in rows] == [False, True, True]
    assert "training seed 1 is missing" in found[0].notes[0]


def test_rows_with_one_reason_share_a_note():
    seeds = [("soft-teacher", seed) for seed in range(3)] + [("daso", 0), ("crest", 0), ("rfs", 0), ("rfs", 1)]
    (found,) = sections_of(*(make_record(method=method, train_seed=seed) for method, seed in seeds))
    missing = "missing, which other rows of this table have"
    assert found.notes == (
        f"crest; daso: training seeds 1, 2 are {missing}; their runs are not averaged and not ranked.",
        f"rfs: training seed 2 is {missing}; its runs are not averaged and not ranked.",
    )


def test_an_unknown_seed_is_not_averaged():
    found = sections_of(make_record(train_seed=None), make_record(train_seed=None, method="rfs"))
    assert all("not known" in row.problem and len(row.runs) == 1 for row in found[0].rows)


def test_two_runs_of_one_seed_with_other_numbers_are_not_averaged():
    found = sections_of(make_record(ap(0.1)), make_record(ap(0.2)), make_record(ap(0.3), train_seed=1))
    assert [len(row.runs) for row in found[0].rows] == [1, 1, 1]
    assert "two runs with training seed 0" in found[0].notes[0]


def test_a_copied_run_counts_once():
    found = sections_of(make_record(), make_record(), make_record(train_seed=1))
    assert len(found[0].rows) == 1
    assert found[0].rows[0].seeds == (0, 1)
    assert "counted once" in found[0].notes[0]


def test_other_options_are_another_row():
    found = sections_of(make_record(method="rfs"), make_record(method="rfs", method_options={"threshold": 0.2}))
    assert sorted(row.label for row in found[0].rows) == ["rfs", "rfs (threshold=0.2)"]


def test_a_metric_that_one_seed_lacks_has_no_mean():
    whole, lacking = make_record(), make_record(train_seed=1)
    lacking.metrics["min"]["AP"] = None
    row = sections_of(whole, lacking)[0].rows[0]
    assert row.spread("min", "AP") is None
    assert math.isclose(row.spread("maj", "AP").mean, 0.25)


def test_order_does_not_depend_on_the_order_of_reading():
    records = [make_record(ap(0.1 * s), train_seed=s, method=m, schedule=n) for s in range(3) for m, n in
               (("rfs", "paper"), ("gbs", "short"), ("gbs", "paper"))]  # fmt: skip
    paths = [Path(f"runs/{index}/result.json") for index in range(len(records))]
    pairs = list(zip(paths, records, strict=True))
    assert comparable_run_sets(pairs) == comparable_run_sets(pairs[::-1])


def test_full_and_longer_schedules_come_first():
    found = sections_of(
        make_record(schedule="smoke", iterations=20, shortened=True),
        make_record(schedule="paper", iterations=9000),
        make_record(schedule="short"),
    )
    assert [run_set.fields["schedule"] for run_set in found] == ["paper", "short", "smoke"]


def row_notes(found):
    return [note for run_set in found for note in run_set.notes]


def made_by(record, **fields):
    return msgspec.structs.replace(record, **fields)


def test_two_versions_of_a_method_are_never_averaged():
    found = sections_of(make_record(ap(0.3), method_version=1), make_record(ap(0.2), train_seed=0))
    assert [row.label for row in found[0].rows] == ["soft-teacher, version 1", "soft-teacher, version 2"]
    apart = sections_of(make_record(method_version=1), make_record(train_seed=1))
    assert all(len(row.runs) == 1 for row in apart[0].rows)


def test_other_defaults_are_another_row_even_where_the_version_was_forgotten():
    found = sections_of(
        make_record(ap(0.3), method="rfs", resolved_options={"theta": 0.9, "threshold": None}),
        make_record(ap(0.2), method="rfs", resolved_options={"theta": 0.8, "threshold": None}),
    )
    assert [row.label for row in found[0].rows] == ["rfs, theta=0.9", "rfs, theta=0.8"]


def test_a_record_without_a_version_is_marked_and_apart():
    old = make_record(ap(0.3), method_version=None, resolved_options=None)
    rows = sections_of(old, make_record(ap(0.2)))[0].rows
    assert [row.label for row in rows] == ["soft-teacher, version not recorded", "soft-teacher, version 2"]
    alone = sections_of(old)
    assert alone[0].rows[0].label == "soft-teacher"
    lacking = "version of the method, options of the method in full"
    assert row_notes(alone) == [f"§ soft-teacher: not recorded: {lacking} (seed 0)."]


@pytest.mark.parametrize(
    ("fields", "lack"),
    [
        ({"package_version": None}, "version of cissod-bench"),
        ({"environment": {}}, "versions of the libraries"),
        ({"data": None}, "size of the data"),
        ({"annotations_digest": None}, "ground truth"),
    ],
)
def test_what_a_record_lacks_is_marked(fields, lack):
    found = sections_of(made_by(make_record(), **fields))
    assert any(f"§ soft-teacher: not recorded: {lack} (seed 0)." == note for note in found[0].notes)
    assert run_set_table(found[0]).rows[0][1].value.endswith("§")


def test_what_is_missing_is_neither_todays_version_nor_from_scratch(tmp_path):
    write_result(tmp_path / "result.json", make_record())
    content = json.loads((tmp_path / "result.json").read_text())
    del content["package_version"], content["key"]["backbone"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    found = load_result(tmp_path / "result.json")
    assert (found.package_version, found.key.backbone) == (None, "not stated")


def test_unknown_ground_truths_are_not_averaged():
    """They may be two: 300 and 3 validation images had one mean."""
    records = [made_by(make_record(ap(0.2 + seed / 10), train_seed=seed), annotations_digest=None) for seed in (0, 1)]
    (found,) = sections_of(*records)
    assert [row.ranked for row in found.rows] == [False, False]
    assert any("the ground truth of a run is not recorded" in note for note in found.notes)


def test_titles_say_the_labelled_fraction_where_it_differs():
    small, large = (
        made_by(make_record(split_digest=digit * 64), label_fraction=fraction)
        for digit, fraction in (("1", 0.01), ("2", 0.1))
    )
    assert [found.title.rpartition(", ")[2] for found in sections_of(small, large)] == [
        "labelled 1 %", "labelled 10 %",
    ]  # fmt: skip


def test_names_of_names_are_the_names_and_null_is_a_value():
    """A label and the file of one table had been cut to two names; a setting of null had been "not stated"."""
    long = file_name(f"{'x' * 130} setting=1")
    assert file_name(long) == long
    null, other = sections_of(
        make_record(overrides={"optim_wrapper.clip_grad": None}), make_record(overrides={"optim_wrapper.clip_grad": 5})
    )
    assert {null.title.rpartition(" ")[2], other.title.rpartition(" ")[2]} == {"null", "5"}
    alike = sections_of(make_record(task="A"), make_record(task="a"))
    assert len({each.name.lower() for each in alike}) == 2, "their files would overwrite each other on some systems"


def test_two_seeds_with_the_same_bits_are_named_and_not_averaged():
    one = make_record(train_seed=0)
    copy = made_by(one, key=msgspec.structs.replace(one.key, train_seed=1), package_version="0.0.9")
    found = sections_of(one, copy)
    assert [row.label for row in found[0].rows] == ["soft-teacher, seed 0", "soft-teacher, seed 1"]
    assert "training seeds 0 and 1 have the same numbers to the last bit" in found[0].notes[0]


def test_detectors_that_found_nothing_are_no_copies():
    nothing = make_record(ap(0.0))
    other = made_by(nothing, key=msgspec.structs.replace(nothing.key, train_seed=1))
    assert sections_of(nothing, other)[0].rows[0].seeds == (0, 1)


def test_what_differs_inside_a_row_is_listed():
    here = made_by(make_record(), package_version="0.2.0", environment={"torch": "2.11.0", "numpy": "2.2.6"})
    there = made_by(
        make_record(train_seed=1), package_version="0.0.9", environment={"torch": "1.9.0", "numpy": "2.2.6"}
    )
    found = sections_of(here, there)
    assert found[0].rows[0].seeds == (0, 1)
    assert row_notes(found) == [
        "soft-teacher: not all runs have the same version of cissod-bench: 0.2.0 (seed 0), 0.0.9 (seed 1).",
        "soft-teacher: not all runs have the same torch: 2.11.0 (seed 0), 1.9.0 (seed 1).",
    ]


def test_a_dirty_tree_is_marked():
    dirty = made_by(make_record(train_seed=1), git=Git("c" * 40, dirty=True))
    clean = made_by(make_record(), git=Git("c" * 40, dirty=False))
    assert row_notes(sections_of(clean, dirty)) == ["‡ soft-teacher: source tree with uncommitted changes (seed 1)."]
    assert row_notes(sections_of(clean)) == []


@pytest.mark.parametrize("degrees", [*range(1, 31), 99, 100])
def test_the_quantile_of_student_is_scipys(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-12)
