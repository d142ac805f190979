"""Error types against the evaluator library's totals, and each type on a case made for it."""

import json

import numpy as np
import pytest

from cissod_bench.evaluation.backends import hotcoco_eval
from cissod_bench.evaluation.inputs import read_detections, read_ground_truth
from cissod_bench.evaluation.tide import ERROR_TYPES, group_confusion, tide_errors
from tests.evaluation.fuzzed import random_dataset


@pytest.mark.parametrize("seed", range(10))
def test_types_add_up_to_the_librarys_totals(write, seed):
    dataset, found = random_dataset(seed, images=15, detected=seed != 9)
    truth = read_ground_truth(write("gt.json", dataset))
    detections = read_detections(found, truth)
    library = hotcoco_eval(truth, detections, 100, lvis=False)
    library.evaluate()
    ours = tide_errors(truth, detections)
    assert {name: int(ours.by_class[name].sum()) for name in ERROR_TYPES} == library.tide_errors()["counts"]


def test_the_official_fake_results(shared):
    folder = "results/cocoapi_val2014_100/"
    truth = read_ground_truth(shared(folder + "instances_val2014_100.json"))
    detections = read_detections(shared(folder + "instances_val2014_fakebbox100_results.json"), truth)
    ours = tide_errors(truth, detections)
    wrong = sum(int(ours.by_class[name].sum()) for name in ERROR_TYPES[:-1])
    library = hotcoco_eval(truth, detections, 100, lvis=False)
    library.evaluate()
    assert {name: int(ours.by_class[name].sum()) for name in ERROR_TYPES} == library.tide_errors()["counts"]
    assert int(ours.correct.sum()) + wrong <= len(detections.scores)


def scene(write):
    """Two classes, one object each, far apart, and another image without objects."""
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [500, 0, 100, 100]},
        ],
    }
    return read_ground_truth(write("gt.json", truth))


@pytest.mark.parametrize(
    ("kind", "box", "image", "name"),
    [
        (2, [0, 0, 100, 90], 1, "Cls"),  # on the object of class 1
        (1, [60, 0, 100, 100], 1, "Loc"),  # IoU 0.25 with its own object
        (2, [60, 0, 100, 100], 1, "Both"),  # IoU 0.25 with another class's object
        (1, [0, 0, 100, 95], 1, "Dupe"),  # a worse copy of the detection that found it
        (1, [250, 0, 100, 100], 1, "Bkg"),
        (1, [0, 0, 100, 100], 2, "Bkg"),
    ],
)
def test_each_type(write, kind, box, image, name):
    truth = scene(write)
    entries = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "score": 0.9},
        {"image_id": image, "category_id": kind, "bbox": box, "score": 0.5},
    ]
    ours = tide_errors(truth, read_detections(entries, truth))
    expected = {error: [0, 0] for error in ERROR_TYPES}
    expected[name][kind - 1] = 1
    expected["Miss"][1] = 1
    assert {error: counts.tolist() for error, counts in ours.by_class.items()} == expected
    assert ours.correct.tolist() == [1, 0]


def test_confusion_of_groups(write):
    """Object a is taken for b, of the other group; object b is found; c is missed below the score that counts."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": index, "name": name} for index, name in enumerate("abcd", start=1)],
        "annotations": [
            {"id": kind, "image_id": 1, "category_id": kind, "bbox": [200 * kind, 0, 100, 100]} for kind in (1, 2, 3, 4)
        ],
    }
    truth = read_ground_truth(write("gt.json", truth))
    shown = [(1, 2, 0.9), (2, 2, 0.8), (3, 3, 0.1), (4, 3, 0.7)]  # place, class, score
    entries = [
        {"image_id": 1, "category_id": kind, "bbox": [200 * place, 0, 100, 100], "score": score}
        for place, kind, score in shown
    ]
    found = group_confusion(truth, read_detections(entries, truth), {"maj": ["b"], "min": ["a", "c", "d"]})
    assert found == {
        "maj": {"correct": 1, "within": 0, "min": 0, "background": 0},
        "min": {"correct": 0, "within": 1, "maj": 1, "background": 1},
    }


def test_every_object_is_counted_once_in_the_confusion(write):
    dataset, found = random_dataset(3, images=30)
    for annotation in dataset["annotations"]:
        annotation["iscrowd"] = 0
    truth = read_ground_truth(write("gt.json", dataset))
    names = list(truth.class_names)
    groups = {"maj": names[:3], "min": names[3:]}
    shares = group_confusion(truth, read_detections(found, truth), groups)
    for group, members in groups.items():
        inside = np.isin(truth.box_class, truth.class_ids[[names.index(name) for name in members]])
        assert sum(shares[group].values()) == int(inside.sum())
    assert json.dumps(shares)
