"""Bad ground truth and bad detections: refused whole, with the file and the entry named."""

import gzip
import json
import lzma
import math

import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate, inputs
from tests.evaluation.fuzzed import random_dataset

IMAGE = {"id": 1}
CLASS = {"id": 3, "name": "a"}
BOX = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]}
FOUND = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.5}


def dataset(**changes):
    return {"images": [IMAGE], "categories": [CLASS], "annotations": [BOX], **changes}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (FOUND | {"image_id": 2}, "detection 1 is on an image"),
        (FOUND | {"category_id": 4}, "detection 1 is of a class"),
        (FOUND | {"score": -0.1}, "negative score"),
        (FOUND | {"bbox": [0, 0, -1, 5]}, "negative width"),
        (FOUND | {"bbox": [0, 0, 5]}, "not a list of detections"),
        (FOUND | {"score": math.nan}, "JSON knows no NaN"),
        ({"image_id": 1}, "missing required field"),
    ],
)
def test_a_detection_that_cannot_be_scored_refuses_the_file(write, entry, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(write("gt.json", dataset()), write("dt.json", [FOUND, entry]), {})
    assert "dt.json" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["score", "bbox"])
def test_not_finite_numbers_in_memory(write, field, value):
    entry = FOUND | {field: value if field == "score" else [0, value, 5, 5]}
    with pytest.raises(UserError, match=r"entry 1 has a .* not .*finite"):
        evaluate(write("gt.json", dataset()), [FOUND, entry], {})


def test_entries_in_memory_that_are_not_detections(write):
    with pytest.raises(UserError, match="entry 0 is not"):
        evaluate(write("gt.json", dataset()), [{"image_id": 1}], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"dt\.json is empty instead of a JSON list"),
        ("  \n", r"dt\.json is empty"),
        ("{}", r"dt\.json starts with '{' instead of a JSON list"),
        ("null", r"dt\.json starts with 'n'"),
        ("[{", r"dt\.json is cut off: it ends after 2 bytes"),
        ('[{"image_id": 1}', r"dt\.json(: not a list of detections| is cut off)"),
        (json.dumps([FOUND]) + "x", r"dt\.json is damaged: data after the end"),
        (json.dumps([FOUND | {"image_id": 2**63}]), r"dt\.json: detection 0: image_id .* is not a whole number below"),
        (json.dumps([FOUND, FOUND | {"category_id": 1.5}]), r"dt\.json: detection 1: category_id 1.5 is not a whole"),
        (json.dumps([FOUND | {"image_id": "1"}]), r"dt\.json: not a list of detections.*\$\[0\]\.image_id"),
    ],
)
def test_files_that_are_no_results(write, tmp_path, text, message):
    path = tmp_path / "dt.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        evaluate(write("gt.json", dataset()), path, {})
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        evaluate(write("gt.json", dataset()), tmp_path / "nowhere.json", {})


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (dataset(categories=[]), "list 'categories' is empty"),
        (dataset(images=[]), "no images"),
        (dataset(images=[IMAGE, IMAGE]), "image id 1 occurs more than once"),
        (dataset(categories=[CLASS, CLASS]), "class id 3 occurs more than once"),
        (dataset(categories=[CLASS, {"id": 4, "name": "a"}]), "class name 'a' occurs more than once"),
        (dataset(categories=[CLASS, {"id": 4, "name": "a "}]), "classes 'a' and 'a ' differ in white space"),
        (dataset(annotations=[BOX | {"image_id": 2}]), r"annotations\[0\] \(id 1\) is of an image"),
        (dataset(annotations=[BOX | {"category_id": 2}]), r"annotations\[0\] \(id 1\) is of a class"),
        (dataset(annotations=[BOX | {"bbox": [0, 0, 3, -3]}]), "negative width or height"),
        ({"images": [IMAGE]}, "not a COCO annotation file: it has no list"),
        ([FOUND], "not a COCO annotation file"),
    ],
)
def test_bad_ground_truth_is_named(write, truth, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(write("gt.json", truth), [], {})
    assert "gt.json" in str(caught.value)


def test_groups_must_name_classes_of_the_data(write):
    with pytest.raises(UserError, match=r"group 'min': Unknown class 'aa'\. Did you mean 'a'"):
        evaluate(write("gt.json", dataset()), [], {"min": ["aa"]})
    with pytest.raises(UserError, match="twice"):
        evaluate(write("gt.json", dataset()), [], {"min": ["a", "a"]})


def test_federated_rules_need_their_fields(write):
    with pytest.raises(UserError, match="neg_category_ids"):
        evaluate(write("gt.json", dataset()), [], {}, lvis=True)
    half = IMAGE | {"neg_category_ids": []}
    with pytest.raises(UserError, match="not_exhaustive_category_ids"):
        evaluate(write("gt.json", dataset(images=[half])), [], {}, lvis=True)


@pytest.mark.parametrize("chunk", [1, 100, 999, 10_000])
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_reading_in_chunks_changes_nothing(write, tmp_path, monkeypatch, chunk, layout):
    truth_dict, found = random_dataset(2)
    found[5]["segmentation"] = {"size": [3, 4], "counts": "abc"}  # other keys, nested ones too, are ignored
    truth = inputs.read_ground_truth(write("gt.json", truth_dict))
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(found, **layout))
    whole = inputs.read_detections(found, truth)
    monkeypatch.setattr(inputs, "CHUNK_BYTES", chunk)
    pieces = inputs.read_detections(path, truth)
    for name in ("box_image", "box_class", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    assert len(pieces.scores) == len(found)


def test_a_file_cut_short_is_refused_in_chunks_too(write, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 500)
    truth_dict, found = random_dataset(2)
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(found)[:-40])
    with pytest.raises(UserError, match="is cut off"):
        evaluate(write("gt.json", truth_dict), path, {})


def test_an_entry_is_named_by_its_number_in_the_file_whatever_the_pieces(write, tmp_path, monkeypatch):
    """Keys that no reader looks at may hold anything, also what looks like the end of an entry."""
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 500)
    truth_dict, found = random_dataset(2)
    found = [entry | {"extra": [{"a": "}, {"}, {}], "ümläut": None} for entry in found]
    truth = write("gt.json", truth_dict)
    bare = [{key: entry[key] for key in ("image_id", "category_id", "bbox", "score")} for entry in found]
    assert evaluate(truth, write("dt.json", found), {}).metrics() == evaluate(truth, bare, {}).metrics()
    wrong = len(found) - 3
    for field, value in (("score", "0.5"), ("image_id", 10**20), ("bbox", [1, 2, 3, -4])):
        damaged = [entry | {field: value} if number == wrong else entry for number, entry in enumerate(found)]
        with pytest.raises(UserError, match=rf"dt\.json.*\b{wrong}\b"):
            evaluate(truth, write("dt.json", damaged), {})


def test_results_with_whole_float_ids_compressed_and_with_a_byte_order_mark(write, tmp_path):
    truth_dict, found = random_dataset(3)
    truth = write("gt.json", truth_dict)
    expected = evaluate(truth, found, {}).metrics()
    floats = [
        entry | {"image_id": float(entry["image_id"]), "category_id": float(entry["category_id"])} for entry in found
    ]
    path = tmp_path / "dt.json.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(floats).encode()))
    assert evaluate(truth, path, {}).metrics() == expected


def test_an_area_below_zero_is_refused(write):
    boxes = [BOX, BOX | {"id": 2, "area": -4.0}]
    with pytest.raises(UserError, match=r"gt\.json: annotation 1 has a negative area: -4.0 \(1 such entries\)"):
        inputs.read_ground_truth(write("gt.json", dataset(annotations=boxes)))


def test_ground_truth_is_read_as_the_splits_read_annotations(write, tmp_path):
    """Compressed, with a byte order mark, with null for what may be missing: the same ground truth."""
    boxes = [BOX | {"area": 50.0}, BOX | {"id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1}]
    plain = inputs.read_ground_truth(write("gt.json", dataset(annotations=boxes)))
    assert plain.areas.tolist() == [50, 12]
    assert plain.crowd.tolist() == [False, True]
    odd = [
        BOX | {"area": 50.0, "iscrowd": None},
        {**BOX, "id": None, "bbox": [1, 2, 3, 4], "iscrowd": True, "area": None},
    ]
    text = json.dumps(dataset(annotations=odd)).encode()
    for name, content in (
        ("odd.json", text),
        ("bom.json", b"\xef\xbb\xbf" + text),
        ("gt.json.gz", gzip.compress(text)),
        ("gt.json.xz", lzma.compress(text)),
    ):
        (tmp_path / name).write_bytes(content)
        assert inputs.read_ground_truth(tmp_path / name).digest() == plain.digest()
    missing = write("missing.json", dataset(annotations=[BOX | {"bbox": None}]))
    with pytest.raises(UserError, match="has a box that is not finite"):
        inputs.read_ground_truth(missing)


def test_area_of_the_file_decides_the_size(write):
    """A box of 81 square pixels whose mask has 2,000: medium, not small."""
    small = evaluate(write("a.json", dataset()), [FOUND], {}).metrics()["all"]
    medium = evaluate(write("b.json", dataset(annotations=[BOX | {"area": 2000}])), [FOUND], {}).metrics()["all"]
    assert (small["APs"], small["APm"]) == (pytest.approx(1), None)
    assert (medium["APs"], medium["APm"]) == (None, pytest.approx(1))
