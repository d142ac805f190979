"""Annotation checks: every fault is found, counted and handled as documented, on made-up and real data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.coco.checks import Flag, dropped, report, usable
from cissod_bench.coco.reader import read_coco

DATA = Path(__file__).parents[3] / "shared" / "data"


def columns_of(folder: Path, boxes: list[dict[str, Any]]) -> Any:
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50},
            {"id": 2, "file_name": "b.jpg"},  # of unknown size
            {"id": 3, "file_name": "c.jpg", "width": 100, "height": 50},
        ],
        "annotations": [{"image_id": 1, "category_id": 1, **box} for box in boxes],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return read_coco(path)[0]


@pytest.mark.parametrize(
    ("box", "flag"),
    [
        ({"bbox": [1, 2, 3, 4]}, 0),
        ({"bbox": [0, 0, 100, 50]}, 0),
        ({"bbox": [-0.5, -0.5, 101, 51]}, 0),  # within a pixel, as official boxes are by rounding
        ({"bbox": [1e308, 10, 1e308, 10], "image_id": 2}, Flag.NO_SIZE),  # without a warning that the sum overflows
        ({"bbox": [50, 10, 60, 10]}, Flag.CROSSES_BORDER),
        ({"bbox": [-5, 10, 60, 10]}, Flag.CROSSES_BORDER),
        ({"bbox": [100, 10, 5, 5]}, Flag.OUTSIDE),
        ({"bbox": [10, -5, 5, 5]}, Flag.OUTSIDE),
        ({"bbox": [1, 2, 0, 4]}, Flag.NO_AREA),
        ({"bbox": [10, 20, 3, -4]}, Flag.NO_AREA),
        ({"bbox": None}, Flag.NOT_FINITE),
        ({"bbox": [1, 2, 3, 4], "image_id": 9}, Flag.UNKNOWN_IMAGE),
        ({"bbox": [1, 2, 3, 4], "category_id": 9}, Flag.UNKNOWN_CLASS),
        ({"bbox": [900, 900, 3, 4], "image_id": 2}, Flag.NO_SIZE),
        ({"bbox": [1, 2, 0.99, 4]}, Flag.THIN),
        ({"bbox": [1, 2, 4, 0.5]}, Flag.THIN),
        ({"bbox": [1, 2, 1, 1]}, 0),
        ({"bbox": [1, 2, 3, 4], "ignore": 1}, Flag.IGNORED),
        ({"bbox": [1, 2, 3, 4], "ignore": True, "iscrowd": True}, Flag.IGNORED),
        ({"bbox": [1, 2, 3, 4], "ignore": None, "iscrowd": None}, 0),
        ({"bbox": [1, 2, 3, 4], "ignore": False}, 0),
        ({"bbox": [1, 2, 0, 4], "image_id": 9}, Flag.UNKNOWN_IMAGE | Flag.NO_AREA),
    ],
)
@pytest.mark.filterwarnings("error")
def test_each_fault_has_its_flag(tmp_path: Path, box: dict[str, Any], flag: int) -> None:
    assert columns_of(tmp_path, [{"id": 1, **box}]).flags.tolist() == [int(flag)]


def test_of_equal_boxes_the_one_with_the_lowest_id_is_kept(tmp_path: Path) -> None:
    box = [1, 2, 3, 4]
    boxes = [
        {"id": 7, "bbox": box},
        {"id": 3, "bbox": box},
        {"id": 9, "bbox": box},
        {"id": 1, "bbox": box, "category_id": 2},
        {"id": 2, "bbox": box, "image_id": 3},
        {"id": 4, "bbox": [1, 2, 3, 4.001]},
    ]
    columns = columns_of(tmp_path, boxes)
    assert columns.flags.tolist() == [16, 0, 16, 0, 0, 0]
    assert usable(columns, "custom").tolist() == [False, True, False, True, True, True]
    assert usable(columns, "coco").all()  # published numbers rest on the official annotations as they are
    assert report(columns, "objects365") == [
        {
            "what": "same box of the same class twice in an image",
            "boxes": 2,
            "annotation_ids": [7, 9],
            "handled": "dropped",
        }
    ]


@pytest.mark.parametrize(
    ("ids", "repeated"), [([1, 2, 3], []), ([3, 1, 2], []), ([5, 1, 5], [5]), ([None, 1, 2], [-1])]
)
def test_annotation_ids_twice_or_missing(tmp_path: Path, ids: list[Any], repeated: list[int]) -> None:
    columns = columns_of(tmp_path, [{"id": key, "bbox": [k, 2, 3, 4]} for k, key in enumerate(ids)])
    found = [row["annotation_ids"] for row in report(columns, "custom") if "annotation id" in row["what"]]
    assert found == ([repeated] if repeated else [])


def test_unusable_boxes_are_dropped_for_every_data_set() -> None:
    for dataset in ("coco", "lvis", "objects365", "shapes", "custom"):
        assert Flag.NO_AREA in dropped(dataset)
        assert Flag.CROSSES_BORDER not in dropped(dataset)
        assert (Flag.DUPLICATE in dropped(dataset)) == (dataset not in ("coco", "lvis"))


def crossing(box: list[float], image: dict[str, Any]) -> bool:
    return box[0] < -1 or box[1] < -1 or box[0] + box[2] > image["width"] + 1 or box[1] + box[3] > image["height"] + 1


@pytest.mark.parametrize(
    ("name", "what", "fault"),
    [
        ("images/bccd/bccd_coco.json", "negative size", lambda box, image: min(box[2:]) <= 0),
        ("objects365/o365_sample1000_coco.json", "over the border", crossing),
    ],
)
def test_real_faults_are_counted(name: str, what: str, fault: Callable[[Any, Any], bool]) -> None:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    ids = sorted(box["id"] for box in content["annotations"] if fault(box["bbox"], images[box["image_id"]]))
    found = next(row for row in report(read_coco(path)[0], "objects365") if what in row["what"])
    assert (found["boxes"], found["annotation_ids"]) == (len(ids), ids[:3])
