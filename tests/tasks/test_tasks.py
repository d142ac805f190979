"""Tasks: the built-in records, and custom tasks from TOML files."""

from pathlib import Path
from typing import Any

import pytest

from cissod_bench.errors import UserError
from cissod_bench.tasks.records import TASKS, MinorityRule, SelectionRule
from cissod_bench.tasks.registry import get_task
from cissod_bench.tasks.task_file import TEMPLATE

MINIMAL = """
name = "mine"
[data]
train_annotations = "train.json"
train_images = "images"
validation_fraction = 0.25
[groups]
minority = ["rare"]
"""


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "task.toml"
    path.write_text(text)
    return get_task(str(path))


def test_the_names_are_those_of_the_records() -> None:
    assert all(name == task.name for name, task in TASKS.items())
    assert len(TASKS["coco-split1"].minority) == 20
    assert len(set(TASKS["coco-split2"].minority)) == 40


def test_the_shapes_task_names_the_classes_of_the_data() -> None:
    from cissod_bench.synthetic.shapes import MINORITY

    assert TASKS["shapes"].minority == MINORITY


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'coco-split1'.*A task file's name ends in \.toml"):
        get_task("coco-splt1")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    task = read(tmp_path, MINIMAL)
    assert task.files.train_annotations == str(tmp_path / "train.json")
    assert task.files.train_images == str(tmp_path / "images")
    assert task.files.val_annotations == ""
    assert (task.name, task.version, task.dataset, task.validation_fraction) == ("mine", 1, "custom", 0.25)
    assert task.selection == SelectionRule()


def test_every_entry_arrives(tmp_path: Path) -> None:
    text = MINIMAL.replace('minority = ["rare"]', "frequency = [3, 30]") + (
        "[labeled]\ncount = 7\nfloor = 2\nstratify = true\n"
        '[training]\ndetector = "r18-small"\niterations = 5\nrfs_threshold = 0.5\nmax_detections = 9\ncrs_gamma = 0.1\n'
    )
    task = read(tmp_path, text)
    assert task.selection == SelectionRule(count=7, floor=2, coverage=True, stratify=True)
    assert (task.frequency_groups, task.group_limits, task.minority) == (True, (3, 30), ())
    assert (task.detector, task.iterations, task.rfs_threshold, task.max_detections, task.crs_gamma) == (
        "r18-small", 5, 0.5, 9, 0.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("max_images = 30", MinorityRule(max_images=30)),
        ("random = 4\nrandom_seed = 2", MinorityRule(random=4, seed=2)),
    ],
)
def test_minority_by_rule(tmp_path: Path, entry: str, rule: MinorityRule) -> None:
    assert read(tmp_path, MINIMAL.replace('minority = ["rare"]', entry)).minority_rule == rule


def test_frequency_groups_need_one_box_a_class_unless_told_otherwise(tmp_path: Path) -> None:
    task = read(tmp_path, MINIMAL.replace('minority = ["rare"]', "frequency = [10, 100]"))
    assert task.selection == SelectionRule(floor=1, coverage=True)


def test_the_template_is_a_valid_task_with_and_without_its_comments(tmp_path: Path) -> None:
    task = read(tmp_path, TEMPLATE)
    assert task.selection == SelectionRule()
    assert task.minority == ("a rare class", "another one")
    # Every commented default must be what happens without it.
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in TEMPLATE.splitlines()
    )
    for alternative in (
        "unlabeled_images",
        "validation_fraction",
        "max_images",
        "random",
        "random_seed",
        "frequency",
        "count",
    ):
        uncommented = "\n".join(line for line in uncommented.splitlines() if not line.startswith(f"{alternative} = "))
    assert read(tmp_path, uncommented) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "mine"', ""), "name is missing"),
        (('name = "mine"', 'name = "coco-split1"'), "built-in"),
        (('name = "mine"', 'name = "../mine"'), "folders are named after it"),
        (('name = "mine"', "name = 3"), "name must be a text"),
        (('name = "mine"', 'nam = "mine"'), "Did you mean 'name'"),
        (("[groups]", "[group]"), "Did you mean 'groups'"),
        (("minority =", "minorty ="), "Did you mean 'minority'"),
        (('minority = ["rare"]', ""), "exactly one of"),
        (('minority = ["rare"]', 'minority = ["rare"]\nrandom = 3'), "exactly one of"),
        (('minority = ["rare"]', "minority = [3]"), r"\[groups\] minority\[0\] must be a text, not 3"),
        (('minority = ["rare"]', "minority = []"), r"\[groups\] minority is empty"),
        (('minority = ["rare"]', "frequency = [100, 10]"), "ascending"),
        (('minority = ["rare"]', "frequency = [0.5, 10]"), r"frequency\[0\] must be a whole number, not 0\.5"),
        (('minority = ["rare"]', "random = true"), "random must be a whole number, not True"),
        (("validation_fraction = 0.25", ""), "val_annotations, or validation_fraction"),
        (
            ("validation_fraction = 0.25", "validation_fraction = 1.5"),
            r"must be a number below 1, not 1\.5",
        ),
        (("validation_fraction = 0.25", 'val_annotations = "v.json"'), "val_images is missing"),
        (('train_images = "images"', ""), r"\[data\] train_images is missing"),
        (
            ("[groups]", "[labeled]\nfraction = 0\n[groups]"),
            r"\[labeled\] fraction must be above 0 and at most 1, not 0",
        ),
        (("[groups]", "[labeled]\nfraction = 0.5\ncount = 3\n[groups]"), "both fraction and count"),
        (("[groups]", "[labeled]\nfloor = -1\n[groups]"), "floor must be a whole number of at least 0, not -1"),
        (
            ("[groups]", '[labeled]\nminority_draw = "some"\n[groups]'),
            "one of needed, uniform, not 'some'",
        ),
        (("[groups]", '[labeled]\nminority_objects = "hide"\n[groups]'), "drop, ignore, keep"),
        (
            ("[groups]", "[training]\niterations = 0\n[groups]"),
            "must be a whole number of at least 1, not 0",
        ),
        (("[groups]", "[groups"), "not a TOML file"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in MINIMAL
    with pytest.raises(UserError, match=message):
        read(tmp_path, MINIMAL.replace(*change))


def test_a_task_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no task file"):
        get_task(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        get_task(str(tmp_path / "folder.toml"))


def test_other_data_than_the_official_files_is_named():
    from cissod_bench.tasks.official import SIZES, remark, unofficial

    assert unofficial("coco-split1", SIZES["coco-split1"]) == []
    assert unofficial("lvis", {"validation_images": 5_000}) == ["5,000 validation images instead of 19,809"]
    assert unofficial("coco-o365", {"train_images": 3, "validation_images": 80_000}) == [], "its training size is open"
    assert unofficial("shapes", {"train_images": 3}) == []
    assert remark("coco-split2", SIZES["coco-split2"]) is None
    assert remark("coco-split2", {"train_images": 80}) == (
        "Not the official data of coco-split2: 80 train images instead of 118,287; no number of the paper compares."
    )
