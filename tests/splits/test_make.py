"""From an annotation file to a split folder."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cissod_bench.errors import UserError
from cissod_bench.splits.folder import load_split
from cissod_bench.splits.write import content_order
from cissod_bench.tasks.records import SelectionRule
from tests.toy import TOY, make_split, toy_data


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data()))
    return path


def written(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "source.json"
    }


def test_the_parts_are_disjoint_and_cover_everything(annotations: Path, tmp_path: Path) -> None:
    make_split(TOY, annotations, tmp_path / "out")
    split = load_split(tmp_path / "out")
    parts = [set(ids.tolist()) for ids in (split.majority_ids, split.minority_ids, split.unlabeled_ids)]
    assert sum(map(len, parts)) == 200
    assert set().union(*parts) == {7 * number + 3 for number in range(200)}
    assert split.class_names == ("usual", "scarce", "rare", "common")  # by id
    assert split.groups == {"maj": ("usual", "common"), "min": ("scarce", "rare")}


def test_the_files_say_what_the_manifest_says(annotations: Path, tmp_path: Path) -> None:
    make_split(TOY, annotations, tmp_path / "out")
    split = load_split(tmp_path / "out")
    labeled = json.loads(split.labeled_file.read_text())
    unlabeled = json.loads(split.unlabeled_file.read_text())
    assert [image["id"] for image in labeled["images"]] == split.labeled_ids.tolist()
    assert [image["id"] for image in unlabeled["images"]] == split.unlabeled_ids.tolist()
    assert unlabeled["annotations"] == []
    assert labeled["categories"] == unlabeled["categories"] == list(split.classes)
    assert len(labeled["annotations"]) == split.counts["labeled_boxes"]
    ids = [annotation["id"] for annotation in labeled["annotations"]]
    assert ids == sorted(ids)


@pytest.mark.parametrize("rule", ["drop", "ignore", "keep"])
def test_minority_objects_in_majority_images(annotations: Path, tmp_path: Path, rule: Any) -> None:
    task = replace(TOY, selection=SelectionRule(fraction=0.5, floor=3, minority_objects=rule))
    make_split(task, annotations, tmp_path / "out")
    split = load_split(tmp_path / "out")
    labeled = json.loads(split.labeled_file.read_text())
    original = {annotation["id"]: annotation for annotation in toy_data()["annotations"]}
    majority = set(split.majority_ids.tolist())
    seen = {annotation["id"]: annotation for annotation in labeled["annotations"]}
    inside = {key: value for key, value in original.items() if value["image_id"] in set(split.labeled_ids.tolist())}
    hidden = {key for key, value in inside.items() if value["image_id"] in majority and value["category_id"] in (5, 4)}
    assert hidden
    for key, annotation in inside.items():
        if key in hidden and rule == "drop":
            assert key not in seen
        else:
            crowd = 1 if key in hidden and rule == "ignore" else annotation["iscrowd"]
            assert seen[key] == {**annotation, "iscrowd": crowd}
    assert set(seen) <= set(inside)


def test_the_order_of_the_file_changes_nothing(annotations: Path, tmp_path: Path) -> None:
    make_split(TOY, annotations, tmp_path / "a")
    content = toy_data()
    for key in content:
        random.Random(5).shuffle(content[key])
    shuffled = tmp_path / "shuffled.json"
    shuffled.write_text(json.dumps({key: content[key] for key in ("categories", "annotations", "images")}, indent=3))
    make_split(TOY, shuffled, tmp_path / "b")
    assert written(tmp_path / "a") == written(tmp_path / "b")
    assert (tmp_path / "a" / "source.json").read_bytes() != (tmp_path / "b" / "source.json").read_bytes()


def test_the_seed_changes_the_draw(annotations: Path, tmp_path: Path) -> None:
    first = make_split(TOY, annotations, tmp_path / "a", seed=0).manifest.digest
    second = make_split(TOY, annotations, tmp_path / "b", seed=1).manifest.digest
    assert first != second
    assert load_split(tmp_path / "a").majority_ids.tolist() != load_split(tmp_path / "b").majority_ids.tolist()


def test_the_same_split_again_touches_nothing(annotations: Path, tmp_path: Path) -> None:
    assert not make_split(TOY, annotations, tmp_path / "out").unchanged
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert make_split(TOY, annotations, tmp_path / "out").unchanged
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(UserError, match="another split"):
        make_split(TOY, annotations, tmp_path / "out", seed=1)


def test_the_same_split_over_an_altered_one_is_not_passed_over(annotations: Path, tmp_path: Path) -> None:
    make_split(TOY, annotations, tmp_path / "out")
    (tmp_path / "out" / "labeled.json").write_text("{}")
    with pytest.raises(UserError, match=r"labeled\.json were altered"):
        make_split(TOY, annotations, tmp_path / "out")
    make_split(TOY, annotations, tmp_path / "out", force=True)
    load_split(tmp_path / "out")


def test_a_class_that_the_data_lacks(annotations: Path, tmp_path: Path) -> None:
    task = replace(TOY, minority=("rate",))
    with pytest.raises(UserError, match=r"'rate'\. Did you mean 'rare'"):
        make_split(task, annotations, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]


def test_the_files_load_in_pycocotools(annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    make_split(TOY, annotations, tmp_path / "out")
    split = load_split(tmp_path / "out")
    labeled, unlabeled = COCO(str(split.labeled_file)), COCO(str(split.unlabeled_file))
    assert sorted(labeled.getImgIds()) == split.labeled_ids.tolist()
    assert sorted(unlabeled.getImgIds()) == split.unlabeled_ids.tolist()
    assert len(labeled.getAnnIds()) == split.counts["labeled_boxes"]
    assert [category["name"] for category in labeled.loadCats(labeled.getCatIds())] == list(split.class_names)


@given(rows=st.lists(st.tuples(*[st.integers(0, 2)] * 8), max_size=40))
def test_boxes_are_in_the_order_of_all_their_columns(rows: list[tuple[int, ...]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 8).T
    images, classes, crowd, areas = columns[0], columns[1], columns[6], columns[7] / 2
    boxes = columns[2:6].T / 4
    expected = sorted(range(len(rows)), key=lambda row: rows[row])  # stable, as NumPy's lexsort
    assert content_order(images, classes, boxes, crowd, areas).tolist() == expected
