"""The paper's numbers stand beside its setting alone: its data, its way to split, its detector, its methods."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cissod_bench.api.results import standards
from cissod_bench.downloads.catalog import SOURCES
from cissod_bench.leaderboard.comparable import RunSet, comparable_run_sets
from cissod_bench.leaderboard.every_number import every_number
from cissod_bench.leaderboard.setting import PAPER_BACKBONE, Standard, departures, is_standard
from cissod_bench.leaderboard.tables import paper_table, run_set_table
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.environment import Git
from cissod_bench.results.record import Group, Result
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.spec import ChosenMethod
from tests.leaderboard.runs import OFFICIAL_COCO, STANDARDS, make_record, paper_record

TASK = TASKS["coco-split1"]


def run_sets(*records: Result) -> list[RunSet]:
    return comparable_run_sets((Path(f"runs/{index}/result.json"), record) for index, record in enumerate(records))


def changed(record: Result, **fields: Any) -> Result:
    return msgspec.structs.replace(record, **fields)


def split_options(**changes: Any) -> dict[str, Any]:
    return {**TASK.split_options, **changes}


def test_the_setting_of_the_paper_has_no_departures() -> None:
    assert departures(run_sets(paper_record())[0]) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"split_options": split_options(fraction=0.5, label_budget=True)}, "split with fraction 0.5 instead of 0.1"),
        ({"split_options": split_options(floor=1)}, "split with floor 1 instead of 10"),
        ({"split_options": split_options(imported=True)}, "labelled images from an imported list"),
        ({"split_options": split_options(fold=[0, 5])}, "a fold of the training images for validation"),
        ({"split_options": None}, "how the split was made is not recorded"),
        ({"data": {}}, "the number of train images, train annotations, validation images"),
        ({"data": {**OFFICIAL_COCO, "train_images": 80}}, "80 train images instead of 118,287"),
        ({"groups": {"all": Group(12, 0), "maj": Group(6, 0), "min": Group(6, 0)}}, "12 classes instead of 80"),
    ],
)
def test_other_data_and_other_splits_depart_from_it(fields: dict[str, Any], reason: str) -> None:
    """Half of COCO labelled, by --fraction or an imported list, had stood beside the paper's 10 %."""
    (found,) = run_sets(changed(paper_record(), **fields))
    assert any(reason in text for text in departures(found)), departures(found)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({"protocol": 9}, "protocol 9 instead of 1"),
        ({"detector_digest": "e" * 64}, "detector r50-fpn from a file instead of r50-fpn"),
        ({"backbone": "0" * 64}, "backbone 00000000 instead of 5891d200"),
    ],
)
def test_another_protocol_and_other_weights_depart_from_it(key: dict[str, Any], reason: str) -> None:
    assert reason in departures(run_sets(paper_record(**key))[0])


def test_any_run_of_a_table_may_depart_from_it() -> None:
    sample = changed(paper_record(method="rfs"), data=OFFICIAL_COCO | {"train_images": 80})
    assert departures(run_sets(paper_record(), sample)[0]) == ["80 train images instead of 118,287"]


def test_the_weights_are_those_of_the_catalogue() -> None:
    assert any(PAPER_BACKBONE in repr(download) for download in SOURCES["resnet50-caffe"].downloads)


def test_the_standards_are_what_a_run_without_options_records() -> None:
    for name, standard in standards().items():
        chosen = ChosenMethod(METHODS[name], name, {}, {})
        assert (standard.version, standard.options) == (METHODS[name].version, chosen.resolved())


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({"method_version": 1}, "version 1 of the method instead of 2"),
        ({"method_version": None, "resolved_options": None}, "the version of the method is not recorded"),
        ({"resolved_options": None}, "the options of the method are not recorded in full"),
        ({"resolved_options": {"theta_min": 0.9}}, "other options than the defaults: theta_min"),
    ],
)
def test_the_papers_number_stands_beside_todays_method_alone(key: dict[str, Any], reason: str) -> None:
    """Rows called plain gbs, of another version or with other defaults, had stood beside the paper's gbs."""
    (found,) = run_sets(paper_record(method="gbs", **key), paper_record(method="rfs"))
    assert [is_standard(row, STANDARDS) for row in sorted(found.rows, key=lambda row: row.method)] == [False, True]
    table = run_set_table(found, standards=STANDARDS)
    place = [column.name for column in table.columns].index("all_paper")
    paper = {str(cells[1].value).rstrip("§"): cells[place].value for cells in table.rows}
    assert (paper["gbs"], paper["rfs"]) == (None, 0.239)
    assert any("paper's number does not stand here" in note and reason in note for note in table.notes)
    numbers = {row["method"]: "paper" in row["scores"]["all"]["AP"] for row in every_number([found], STANDARDS)}
    assert numbers == {"gbs": False, "rfs": True}
    beside = paper_table(1, [found], standards=STANDARDS)
    assert beside is not None
    assert [cell.value for cell in beside.rows[7][-3:]] == [None, None, None]
    assert any(reason in note for note in beside.notes)


def test_the_papers_table_takes_todays_version_not_the_best_one_and_keeps_its_marks() -> None:
    """The better run of version 1, from a tree with uncommitted changes, had stood there without a word."""
    best = changed(
        paper_record({"all": 0.6, "maj": 0.6, "min": 0.6}, method="gbs", method_version=1),
        git=Git("c" * 40, dirty=True),
    )
    today = changed(paper_record({"all": 0.5, "maj": 0.5, "min": 0.5}, method="gbs"), git=Git("d" * 40, dirty=True))
    table = paper_table(1, run_sets(best, today), standards=STANDARDS)
    assert table is not None
    cells = table.rows[7][-3:]
    assert [cell.value for cell in cells] == [0.5, 0.5, 0.5]
    assert [cell.mark for cell in cells] == ["≠‡", "≠‡", "≠‡"]
    assert any("version 1 is left out: version 1 of the method instead of 2" in note for note in table.notes)
    assert any(note.startswith("‡") and "uncommitted changes" in note for note in table.notes)


def test_programs_can_tell_all_rows_apart() -> None:
    one, other = (
        changed(make_record({"all": value, "maj": value, "min": value}, resolved_options={"theta": theta}), git=git)
        for value, theta, git in ((0.5, 0.9, Git("c" * 40, dirty=True)), (0.25, 0.8, None))
    )
    first, second = every_number(run_sets(one, other))
    assert (first["row"], second["row"]) == ("soft-teacher, theta=0.9", "soft-teacher, theta=0.8")
    assert (first["resolved_options"], second["resolved_options"]) == ({"theta": 0.9}, {"theta": 0.8})
    assert (first["dirty"], second["dirty"]) == (True, None)
    assert first["package_versions"] == ["0.2.0"]


def test_options_that_no_name_says_are_said() -> None:
    defaults = {"gbs": Standard(2, {"beta": 0.5, "crs": True})}
    named = make_record(method="gbs", method_options={"beta": 0.7}, resolved_options={"beta": 0.7, "crs": True})
    hidden = make_record(method="gbs", resolved_options={"beta": 0.5, "crs": False})
    found = []
    for record in (named, hidden):
        (run_set,) = run_sets(record)
        found.append([note for note in run_set_table(run_set, standards=defaults).notes if "records" in note])
    said = "gbs: its records have other options than the defaults: crs that its name does not say."
    assert found == [[], [said]]


def test_two_methods_with_the_same_numbers_are_named() -> None:
    nothing = dict.fromkeys(("all", "maj", "min"), 0.0)
    (run_set,) = run_sets(
        make_record(method="gbs"),
        make_record(method="mine"),
        make_record({"all": 0.3, "maj": 0.35, "min": 0.2}),
        make_record(nothing, method="none"),
        make_record(nothing, method="neither"),
    )
    notes = [note for note in run_set_table(run_set).notes if "to the last bit" in note]
    assert notes == ["gbs and mine: the same numbers to the last bit, as copies of one run would have."]
