"""Objects365 v2: which files are accepted, where images lie, and how COCO's classes map."""

import json
from pathlib import Path

import numpy as np
import pytest

from cissod_bench.coco.columns import Category
from cissod_bench.coco.objects365 import ABSENT_FILES, FROM_COCO, NAMES, check_classes, unpacked_names
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from cissod_bench.splits.sources import COCO_ID_OFFSET, read_sources
from cissod_bench.tasks.registry import TASKS

DATA = Path(__file__).parents[3] / "shared" / "data" / "objects365"


def categories(names: list[str]) -> tuple[Category, ...]:
    return tuple(Category(number, name) for number, name in enumerate(names, 1))


def test_the_tables_are_those_of_the_release() -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    official = json.loads((DATA / "objects365_v2_categories.json").read_text())
    assert [entry["name"].strip() for entry in official] == list(NAMES)
    mapping = json.loads((DATA / "coco_to_objects365_ci_ssod.json").read_text())
    expected = {entry["coco_name"]: entry["o365_id"] for entry in mapping if entry["o365_id"] is not None}
    assert expected == FROM_COCO
    assert len(FROM_COCO) == 79
    assert len(set(FROM_COCO.values())) == 78
    for key in ("name", "name_fixed_detic", "name_ci_ssod", "name_yolov5"):
        check_classes(categories([entry[key] for entry in official]), "file")


def test_spelling_does_not_matter_order_does() -> None:
    check_classes(categories([f" {name.upper()} " for name in NAMES]), "file")
    with pytest.raises(UserError, match="looks like version 1"):
        check_classes(categories([*NAMES[180:], *NAMES[:180]]), "file")
    with pytest.raises(UserError, match="is not Objects365 v2"):
        check_classes(categories([f"class {number}" for number in range(365)]), "file")
    with pytest.raises(UserError, match="is not Objects365 v2"):
        check_classes(categories(list(NAMES[:80])), "file")


def test_only_the_last_two_parts_of_a_file_name_matter() -> None:
    names = ["images/v1/patch8/objects365_v1_00420917.jpg", "patch8/x.jpg", "x.jpg"]
    assert unpacked_names(names) == ["patch8/objects365_v1_00420917.jpg", "patch8/x.jpg", "x.jpg"]


def write(path: Path, images: list[tuple[int, str]], names: list[str]) -> Path:
    content = {
        "images": [{"id": number, "file_name": name, "width": 100, "height": 100} for number, name in images],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1 + number % len(names), "bbox": [1, 2, 3, 4]}
            for number, _ in images
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    path.write_text(json.dumps(content))
    return path


def test_both_data_sets_side_by_side(tmp_path: Path) -> None:
    absent = sorted(ABSENT_FILES)[0]
    target = write(tmp_path / "o.json", [(3, "images/v1/patch8/a.jpg"), (5, f"images/v2/{absent}")], list(NAMES))
    coco_names = sorted([*FROM_COCO, "sports ball"])
    coco = write(tmp_path / "c.json", [(number, f"{number}.jpg") for number in range(80)], coco_names)
    sources, files = read_sources(TASKS["coco-o365"], target, coco, read_coco)
    assert [file.name for file in files] == ["o.json", "c.json"]
    assert sources.absent.tolist() == [False, True]
    assert sources.train.file_names.take(np.array([0])) == ["objects365/train/patch8/a.jpg"]
    assert sources.majority is not None
    assert sources.majority.image_ids.tolist() == [COCO_ID_OFFSET + number for number in range(80)]
    assert sources.majority.file_names.take(np.array([7])) == ["coco/train2017/7.jpg"]
    for number in range(80):
        name = coco_names[number]
        assert sources.majority.box_label[number] == FROM_COCO.get(name, 0) - 1
        assert bool(sources.majority.flags[number]) == (name == "sports ball")


def test_what_the_task_needs_is_said(tmp_path: Path) -> None:
    target = write(tmp_path / "o.json", [(3, "a/b.jpg")], list(NAMES))
    with pytest.raises(UserError, match="--majority-annotations"):
        read_sources(TASKS["coco-o365"], target, None, read_coco)
    with pytest.raises(UserError, match="is not COCO"):
        read_sources(TASKS["coco-o365"], target, target, read_coco)
