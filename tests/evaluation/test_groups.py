"""Group AP against the official libraries: reference values, bit-equality of backends, naive means."""

import json
from pathlib import Path

import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.evaluation import METRICS, evaluate, load_evaluation, save_evaluation
from tests.evaluation.fuzzed import random_dataset

REFERENCE = "results/cocoapi_val2014_100/"


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_official_reference_values(shared, evaluator):
    """What the COCO API prints for its own fake results (data/README.md), to the three digits given there."""
    result = evaluate(
        shared(REFERENCE + "instances_val2014_100.json"),
        shared(REFERENCE + "instances_val2014_fakebbox100_results.json"),
        {},
        evaluator=evaluator,
    )
    row = result.metrics()["all"]
    assert [round(row[metric], 3) for metric in METRICS] == [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.595]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("max_detections", [100, 3])
def test_hotcoco_equals_pycocotools_bit_by_bit(write, seed, max_detections):
    dataset, found = random_dataset(seed, detected=seed != 11)
    truth = write("gt.json", dataset)
    ours, oracle = (
        evaluate(truth, found, {}, evaluator=name, max_detections=max_detections) for name in ("hotcoco", "pycocotools")
    )
    np.testing.assert_array_equal(ours.precision, oracle.precision)
    np.testing.assert_array_equal(ours.recall, oracle.recall)
    assert ours.without_ground_truth >= 1
    assert (ours.metrics()["all"]["AP"] > 0) == bool(found)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("max_detections", [300, 4])
def test_hotcoco_equals_lvis_bit_by_bit(write, seed, max_detections):
    """With negative and not exhaustive lists, and the cap over all classes of an image."""
    dataset, found = random_dataset(seed, lvis=True, detected=seed != 11)
    truth = write("gt.json", dataset)
    ours, oracle = (
        evaluate(truth, found, {}, evaluator=name, max_detections=max_detections, lvis=True)
        for name in ("hotcoco", "lvis")
    )
    np.testing.assert_array_equal(ours.precision, oracle.precision)
    np.testing.assert_array_equal(ours.recall, oracle.recall)


def test_lvis_backends_agree_on_real_annotations(shared):
    """100 real LVIS images, 1,230 classes: half of the true boxes moved, and guesses of negative classes."""
    path = shared("lvis/lvis_val_100.json")
    dataset = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": float(rng.integers(1, 9)) / 10,
         "bbox": [a["bbox"][0] + float(rng.normal(0, 2)), *a["bbox"][1:]]}
        for a in dataset["annotations"] if rng.random() < 0.7
    ]  # fmt: skip
    kinds = [category["id"] for category in dataset["categories"]]
    for image in dataset["images"]:
        for kind in [*image["neg_category_ids"][:3], *rng.choice(kinds, 3).tolist()]:
            box = rng.uniform(5, 100, 4).tolist()
            found.append({"image_id": image["id"], "category_id": kind, "bbox": box, "score": float(rng.random())})
    ours, oracle = (evaluate(path, found, {}, evaluator=e, max_detections=300, lvis=True) for e in ("hotcoco", "lvis"))
    np.testing.assert_array_equal(ours.precision, oracle.precision)
    np.testing.assert_array_equal(ours.recall, oracle.recall)
    assert 0.3 < ours.metrics()["all"]["AP"] < 0.9


def test_federated_rules_change_the_result(write):
    """A guess of a class that an LVIS image says nothing about costs nothing; under COCO's rules it does."""
    dataset, found = random_dataset(3, lvis=True)
    truth = write("gt.json", dataset)
    federated, plain = (evaluate(truth, found, {}, lvis=lvis).metrics()["all"]["AP"] for lvis in (True, False))
    assert federated > plain


@pytest.mark.parametrize("seed", range(5))
def test_group_metrics_are_naive_means_over_pycocotools_arrays(write, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, found = random_dataset(seed, images=25, classes=9)
    for annotation in dataset["annotations"]:
        annotation["id"] += 1  # the official library takes a box with id 0 for unmatched
    truth = write("gt.json", dataset)
    official = COCO(str(truth))
    raw = COCOeval(official, official.loadRes(str(write("dt.json", found))), "bbox")
    raw.evaluate()
    raw.accumulate()
    ids = sorted(official.getCatIds())
    names = [official.cats[class_id]["name"] for class_id in ids]
    groups = {"maj": names[:4], "min": names[4:]}
    result = evaluate(truth, found, groups).metrics()
    for group, members in {"all": names, **groups}.items():
        for metric, iou, size in (("AP", slice(None), 0), ("AP50", 0, 0), ("AP75", 5, 0), ("APs", slice(None), 1)):
            values = []
            for name in members:
                array = raw.eval["precision"][iou, :, names.index(name), size, -1]
                if (array > -1).any():
                    values.append(sum(array.ravel().tolist()) / array.size)
            assert result[group][metric] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_pycocotools_summary_is_the_group_all(write, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, found = random_dataset(7, images=25)
    for annotation in dataset["annotations"]:
        annotation["id"] += 1
    truth = write("gt.json", dataset)
    official = COCO(str(truth))
    raw = COCOeval(official, official.loadRes(str(write("dt.json", found))), "bbox")
    raw.evaluate()
    raw.accumulate()
    raw.summarize()
    row = evaluate(truth, found, {}).metrics()["all"]
    expected = dict(zip(METRICS, [*raw.stats[:6], raw.stats[8]], strict=True))
    assert row == pytest.approx(expected, abs=1e-12)


def test_a_group_without_ground_truth_has_no_metric(write):
    dataset, found = random_dataset(0)
    empty = next(c["name"] for c in dataset["categories"] if "empty" in c["name"])
    full = next(c["name"] for c in dataset["categories"] if "empty" not in c["name"])
    result = evaluate(write("gt.json", dataset), found, {"min": [empty], "mixed": [empty, full]}).metrics()
    assert result["min"] == dict.fromkeys(METRICS)
    only_full = evaluate(write("gt.json", dataset), found, {"one": [full]}).metrics()["one"]
    assert result["mixed"] == only_full


def test_ids_of_annotations_do_not_matter(write):
    """A first annotation with id 0 is matched like any other (in pycocotools alone it is not)."""
    box = [10.0, 10.0, 50.0, 50.0]
    dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 3, "bbox": box, "area": 2500, "iscrowd": 0}],
    }
    found = [{"image_id": 1, "category_id": 3, "bbox": box, "score": 0.5}]
    for evaluator in ("hotcoco", "pycocotools"):
        assert evaluate(write("gt.json", dataset), found, {}, evaluator=evaluator).metrics()["all"][
            "AP"
        ] == pytest.approx(1)


def test_saved_arrays_come_back_and_are_the_same_bytes(write, tmp_path: Path):
    dataset, found = random_dataset(1)
    names = [category["name"] for category in dataset["categories"]]
    result = evaluate(write("gt.json", dataset), found, {"maj": names[:3], "min": names[3:]})
    for name in ("a.npz", "b.npz"):
        save_evaluation(tmp_path / name, result)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load_evaluation(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.precision, result.precision)
    assert back.metrics() == result.metrics()
    assert back.groups == result.groups
    assert (back.evaluator, back.max_detections, back.lvis) == ("hotcoco", 100, False)


def test_damaged_arrays_are_named(tmp_path: Path):
    (tmp_path / "per_class.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(UserError, match=r"per_class\.npz"):
        load_evaluation(tmp_path / "per_class.npz")


def test_unknown_evaluator_and_wrong_rules(write):
    dataset, found = random_dataset(0)
    truth = write("gt.json", dataset)
    with pytest.raises(UserError, match="Did you mean 'pycocotools'"):
        evaluate(truth, found, {}, evaluator="pycocotool")
    with pytest.raises(UserError, match="does not know LVIS"):
        evaluate(write("l.json", random_dataset(0, lvis=True)[0]), [], {}, evaluator="pycocotools", lvis=True)
    with pytest.raises(UserError, match="only LVIS"):
        evaluate(truth, found, {}, evaluator="lvis")
    with pytest.raises(UserError, match="max_detections is 0"):
        evaluate(truth, found, {}, max_detections=0)


def test_official_lvis_groups_stand_beside_those_of_the_split(write):
    dataset, found = random_dataset(2, lvis=True)
    for category, frequency in zip(dataset["categories"], "rrcfffc", strict=True):
        category["frequency"] = frequency
    names = [category["name"] for category in dataset["categories"]]
    result = evaluate(write("gt.json", dataset), found, {"f": names[:5], "r": names[5:]}, lvis=True)
    assert list(result.groups) == ["all", "f", "r", "official-f", "official-c", "official-r"]
    assert set(result.groups["official-c"]) == {names[2], names[6]}
    assert list(evaluate(write("gt.json", dataset), found, {}).groups) == ["all"]


def test_the_digest_is_of_the_content_not_of_the_file(write):
    dataset, found = random_dataset(4)

    def digest(changed):
        return evaluate(write("gt.json", changed), found, {}).annotations_digest

    shuffled = {key: values[::-1] for key, values in dataset.items()}
    assert digest(dataset) == digest(shuffled)
    moved = json.loads(json.dumps(dataset))
    moved["annotations"][0]["bbox"][0] += 0.5
    renamed = json.loads(json.dumps(dataset))
    renamed["categories"][0]["name"] = "other"
    fewer = dict(dataset, images=[*dataset["images"], {"id": 99_999}])
    assert len({digest(changed) for changed in (dataset, moved, renamed, fewer)}) == 4


@pytest.mark.parametrize("offset", [-1000, 2**60])
def test_any_integer_may_be_an_id(write, offset):
    """Negative ids, and ids that a float cannot hold."""
    dataset, found = random_dataset(6)
    plain = evaluate(write("gt.json", dataset), found, {}).metrics()
    for entry in (*dataset["annotations"], *found):
        entry["image_id"] += offset
    for image in dataset["images"]:
        image["id"] += offset
    assert evaluate(write("moved.json", dataset), found, {}).metrics() == plain


def test_a_class_that_only_the_annotations_have_is_not_in_all(write):
    truth, found = random_dataset(5)
    names = [entry["name"] for entry in sorted(truth["categories"], key=lambda entry: entry["id"])]
    path = write("gt.json", truth)
    groups = {"maj": names[:1], "min": [f" {names[1]} "]}
    scores = evaluate(path, found, groups, classes=names[:2])
    assert scores.groups == {"all": tuple(names[:2]), "maj": (names[0],), "min": (names[1],)}
    assert scores.outside_task == tuple(names[2:])
    values = scores.per_class()["AP"][:2]
    assert scores.metrics()["all"]["AP"] == pytest.approx(np.nanmean(values))
    assert evaluate(path, found, groups).groups["all"] == tuple(names)
