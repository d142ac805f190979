"""The reader: equal to json.load on real files, whatever the layout; a clear error for everything else."""

import gzip
import json
import lzma
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = (
    "images/bccd/bccd_coco.json",
    "images/coco128/annotations/instances_train2017.json",
    "lvis/lvis_val_100.json",
    "objects365/o365_sample1000_coco.json",
    "coco2017/instances_val2017_boxes.json.xz",
)

SMALL: dict[str, Any] = {
    "info": {"description": 'brackets ]}[{ and "quotes" }, { in text', "list": [1, [2, {"a": None}], -3.5e-7]},
    "images": [
        {"id": 5, "file_name": "é \\\\ \\u00e9.jpg", "width": 30, "height": 20},
        {"id": 3, "file_name": "}, {.jpg", "width": None, "height": 20.0},
    ],
    "annotations": [
        {
            "id": 8,
            "image_id": 3,
            "category_id": 2,
            "bbox": [1, 2.5, 3, 4e0],
            "segmentation": [[1, 2, 3], [{"a": "}, {"}, {"b": [{}, {}]}]],
            "iscrowd": 1,
            "area": 6.25,
        },
        {"image_id": 5, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": {"counts": "x},{y", "size": [20, 30]}},
    ],
    "categories": [{"id": 2, "name": "b", "supercategory": "x"}, {"id": 1, "name": "a"}],
    "licenses": "none",
}


def naive(content: dict[str, Any], image_name: str = "file_name") -> dict[str, Any]:
    """What the columns must hold, in plain Python."""
    images = sorted(content["images"], key=lambda image: image["id"])
    categories = sorted(content["categories"], key=lambda category: category["id"])
    rows = {image["id"]: row for row, image in enumerate(images)}
    labels = {category["id"]: label for label, category in enumerate(categories)}
    boxes = content["annotations"]
    return {
        "image_ids": [image["id"] for image in images],
        "widths": [image["width"] or 0 for image in images],
        "file_names": [image[image_name] for image in images],
        "names": [category["name"] for category in categories],
        "box_ids": [box.get("id", -1) for box in boxes],
        "box_image": [rows[box["image_id"]] for box in boxes],
        "box_label": [labels[box["category_id"]] for box in boxes],
        "crowd": [bool(box.get("iscrowd", 0)) for box in boxes],
        "boxes": [[float(value) for value in box["bbox"]] for box in boxes],
        "areas": [box.get("area", box["bbox"][2] * box["bbox"][3]) for box in boxes],
    }


def as_lists(columns: Columns) -> dict[str, Any]:
    return {
        "image_ids": columns.image_ids.tolist(),
        "widths": columns.widths.tolist(),
        "file_names": columns.file_names.take(np.arange(columns.num_images)),
        "names": [category.name for category in columns.categories],
        "box_ids": columns.box_ids.tolist(),
        "box_image": columns.box_image.tolist(),
        "box_label": columns.box_label.tolist(),
        "crowd": columns.crowd.tolist(),
        "boxes": columns.boxes.tolist(),
        "areas": columns.areas.tolist(),
    }


def read_text(folder: Path, text: str | bytes, **options: Any) -> Columns:
    path = folder / "annotations.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_coco(path, **options)[0]


@pytest.mark.parametrize("name", REAL)
def test_equal_to_json_load_on_real_files(name: str) -> None:
    path = DATA / name
    if not path.is_file():
        candidates = sorted(path.parent.rglob("*.json")) if path.parent.is_dir() else []
        pytest.skip(f"{path} is not there ({len(candidates)} other files)")
    content = json.loads(lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes())
    assert as_lists(read_coco(path)[0]) == naive(content)


def test_lvis_is_named_by_its_url_and_keeps_its_federated_fields() -> None:
    path = DATA / "lvis" / "lvis_val_100.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    columns = read_coco(path, file_names="coco_url")[0]
    images = sorted(json.loads(path.read_text())["images"], key=lambda image: image["id"])
    assert columns.file_names.take(np.arange(100)) == [
        image["coco_url"].removeprefix("http://images.cocodataset.org/") for image in images
    ]
    for image, extra in zip(images, columns.extras.take(np.arange(100)), strict=True):
        fields = json.loads(extra)
        assert fields["neg_category_ids"] == image["neg_category_ids"]
        assert fields["not_exhaustive_category_ids"] == image["not_exhaustive_category_ids"]
    assert columns.categories[0].frequency == "r"


@pytest.mark.parametrize("indent", [None, 0, 4])
@pytest.mark.parametrize("piece", [1, 7, 50, 300, 1 << 20])
@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
def test_any_layout_and_size_of_the_pieces(tmp_path: Path, indent: int | None, piece: int, order: Any) -> None:
    rest = [key for key in SMALL if key not in order]
    content = {key: SMALL[key] for key in (*order, *rest)}
    columns = read_text(tmp_path, json.dumps(content, indent=indent), piece=piece)
    assert as_lists(columns) == naive(SMALL)


def test_white_space_everywhere_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = json.dumps(SMALL, indent="\t", separators=(" \r\n ,", "\t:\r\n"))
    assert as_lists(read_text(tmp_path, b"\xef\xbb\xbf\n " + text.encode() + b"\n\n", piece=40)) == naive(SMALL)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_files_are_told_by_their_content(tmp_path: Path, compress: Any) -> None:
    packed = compress(json.dumps(SMALL).encode())
    assert as_lists(read_text(tmp_path, packed, piece=64)) == naive(SMALL)
    for length in (7, 20, len(packed) // 2, len(packed) - 4):
        with pytest.raises(UserError, match=r"damaged|is empty|cut off"):
            read_text(tmp_path, packed[:length])


def test_the_source_is_the_raw_file(tmp_path: Path) -> None:
    import hashlib

    packed = gzip.compress(json.dumps(SMALL).encode())
    (tmp_path / "a.json.gz").write_bytes(packed)
    source = read_coco(tmp_path / "a.json.gz")[1]
    assert (source.name, source.size, source.sha256) == (
        "a.json.gz",
        len(packed),
        hashlib.sha256(packed).hexdigest(),
    )


def test_cut_off_at_any_byte(tmp_path: Path) -> None:
    text = json.dumps(SMALL).encode()
    for length in range(len(text)):
        with pytest.raises(UserError, match=r"cut off|is empty|damaged"):
            read_text(tmp_path, text[:length], piece=64)


def test_missing_and_odd_values_become_flags_not_errors(tmp_path: Path) -> None:
    boxes = (
        '{"id": 1, "image_id": 5, "category_id": 1, "bbox": [NaN, 0, 1, 1]},'
        '{"id": 2, "image_id": 5, "category_id": 1, "bbox": [0, -Infinity, 1, 1], "area": Infinity},'
        '{"id": 3, "image_id": 5, "category_id": 1, "bbox": null, "iscrowd": true},'
        '{"id": 4, "image_id": 5, "category_id": 1, "bbox": [], "area": null},'
        '{"id": 5, "image_id": 5, "category_id": 1, "bbox": [0, 0, 2, null], "note": "NaN Infinity"},'
        '{"id": null, "image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": false}'
    )
    text = json.dumps({**SMALL, "annotations": "HERE"}).replace('"HERE"', f"[{boxes}]")
    columns = read_text(tmp_path, text)
    assert columns.box_ids.tolist() == [1, 2, 3, 4, 5, -1]
    assert columns.crowd.tolist() == [False, False, True, False, False, False]
    assert columns.flags.tolist() == [1, 1, 1, 17, 1, 0]  # of two without a box the second is a duplicate, too
    assert columns.boxes[5].tolist() == [1, 2, 3, 4]
    assert columns.areas[5] == 12


def change(key: str, number: int, **fields: Any) -> dict[str, Any]:
    items = [dict(item) for item in SMALL[key]]
    items[number] = {name: value for name, value in {**items[number], **fields}.items() if value is not ...}
    return {**SMALL, key: items}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change("images", 1, id=5), "image id 5 occurs more than once"),
        (change("images", 1, id="x"), r"images\[1\]\.id: Expected int \| float, got str"),
        (change("images", 1, id=2**63), r"images\[1\]\.id must be a whole number below"),
        (change("annotations", 1, image_id=2**63), r"annotations\[1\]\.image_id must be a whole number below"),
        (change("annotations", 1, image_id=1e17 + 0.5), r"annotations\[1\]\.image_id must be a whole number below"),
        (change("images", 1, id=1.5), r"images\[1\]\.id must be a whole number"),
        (change("images", 1, id=...), r"images\[1\]: .*missing required field id"),
        (change("images", 1, file_name=...), r"images\[1\] has neither file_name"),
        (change("images", 1, width=-4), r"images\[1\]\.width or height"),
        (change("images", 1, width="30"), r"images\[1\]\.width: Expected"),
        (change("annotations", 1, image_id="3"), r"\[1\]\.image_id: Expected float, got str; a number has no quotes"),
        (change("annotations", 1, image_id=...), r"annotations\[1\]: .*missing required field image_id"),
        (change("annotations", 1, image_id=10**400), "annotations|out of range"),
        (change("annotations", 1, category_id=2**40), r"annotations\[1\]\.category_id must be a whole number below"),
        (change("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\]\.bbox must be four numbers"),
        (change("annotations", 1, bbox="1 2 3 4"), r"annotations\[1\]\.bbox: Expected"),
        (change("annotations", 1, bbox=[1, 2, 3, "4"]), r"annotations\[1\]\.bbox must be four numbers"),
        (change("annotations", 1, area="big"), r"annotations\[1\]\.bbox must be four numbers and area one"),
        (change("categories", 1, id=2), "class id 2 occurs more than once"),
        (change("categories", 1, name=" "), "the class with id 1 has an empty name"),
        (change("categories", 1, name="b"), "class name 'b' occurs more than once"),
        (change("categories", 1, name=7), r"categories\[1\]\.name: Expected str, got int"),
        ({**SMALL, "categories": []}, "'categories' is empty"),
        ({key: value for key, value in SMALL.items() if key != "images"}, "no list 'images'"),
        ({key: value for key, value in SMALL.items() if key != "annotations"}, "no list 'annotations'"),
        ({**SMALL, "annotations": {"a": 1}}, "expected a list"),
        ({**SMALL, "annotations": [1, 2]}, r"annotations\[0\]: Expected object, got int"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    for piece in (16, 1 << 20):
        with pytest.raises(UserError, match=message):
            read_text(tmp_path, json.dumps(content), piece=piece)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"[]", r"starts with '\['"),
        (b"hello", "starts with 'h'"),
        (b"<html>", "starts with '<'"),
        (bytes(range(256)), "is not a COCO annotation file"),
        (b"{}", "no list 'images'"),
        (b'{"images": []} x', "data after the end"),
        (b'{"images": [],, }', "expected a key"),
        (b'{"images" []}', "expected ':'"),
        (b'{"images": [] "a": 1}', "expected ',' or '}'"),
        (b'{"info": tru, "images": []}', "expected a value"),
        (b'{"info": [}, "images": []}', "unbalanced"),
        (b'{"images": [{"id": 1,}]}', "damaged"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}]}', r"is not UTF-8: byte 36 is 0xff\. Save it as UTF-8"),
        (b'{"images": [{"id": 1, "file_name": "a"} {"id": 2}]}', "damaged"),
        (b'{"images": [], "images": []}', "'images' twice"),
        (b'{"images": ' + b"[" * 100_000, "damaged|Expected|cut off"),
        (b'{"info": ' + b"[" * 100_000, "cut off"),
        (b'{"images": [{"id":' + b"[" * 100_000, "damaged|Expected|cut off"),
        (b'{"images": [{"x":' + b"[" * 100_000, "damaged|Expected|cut off"),
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, text: bytes, message: str) -> None:
    for piece in (16, 1 << 20):
        with pytest.raises(UserError, match=message):
            read_text(tmp_path, text, piece=piece)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no annotation file"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        read_coco(tmp_path)
    if os.geteuid() != 0:
        (tmp_path / "closed.json").write_text("{}")
        (tmp_path / "closed.json").chmod(0)
        with pytest.raises(UserError, match="Permission denied"):
            read_coco(tmp_path / "closed.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BOX = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([3, 5]),
        "category_id": st.sampled_from([1, 2]),
        "bbox": st.tuples(*[st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)] * 4),
    },
    optional={
        "id": st.integers(-(2**63) + 2, 2**63 - 2),
        "iscrowd": st.sampled_from([0, 1]),
        "area": st.floats(allow_nan=False, allow_infinity=False),
        "segmentation": JSON,
        "note": JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(boxes=st.lists(BOX, max_size=6), extra=JSON, piece=st.integers(1, 400), indent=st.sampled_from([None, 1]))
def test_equal_to_json_load_on_made_up_files(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[Any], extra: Any, piece: int, indent: int | None
) -> None:
    content = {"extra": extra, **SMALL, "annotations": boxes}
    text = json.dumps(content, indent=indent)
    path = tmp_path_factory.getbasetemp() / "made_up.json"
    path.write_text(text)
    columns = read_coco(path, piece=piece)[0]
    expected = naive(json.loads(text))
    actual = as_lists(columns)
    # An area of the file that is not finite cannot be; a product of sides can overflow.
    assert all(math.isfinite(area) or not math.isfinite(math.prod(box[2:]))
               for area, box in zip(actual.pop("areas"), actual["boxes"], strict=True))  # fmt: skip
    expected.pop("areas")
    assert actual == expected


@settings(max_examples=120, deadline=None)
@given(data=st.data(), piece=st.sampled_from([16, 100, 1 << 20]))
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, piece: int
) -> None:
    text = bytearray(json.dumps({key: SMALL[key] for key in ("images", "annotations", "categories")}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["replace", "insert", "delete"]))
        junk = data.draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"}, {", b"]", b'"', b"NaN", b"null"]))
        text[place : place + (0 if how == "insert" else len(junk))] = b"" if how == "delete" else junk
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(text)
    try:
        columns = read_coco(path, piece=piece)[0]
    except UserError:
        return
    # Read: then a strict parser reads it too, and sees the same number of boxes.
    content = json.loads(bytes(text).decode("utf-8-sig", "surrogateescape"), strict=False)
    assert columns.num_boxes == len(content["annotations"])
