"""What counts by LVIS's rules, and its errors: against lvis-api, the evaluator library, and cases made for each."""

import json
from pathlib import Path

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from cissod_bench.evaluation.backends import hotcoco_eval
from cissod_bench.evaluation.federated import only_what_counts
from cissod_bench.evaluation.inputs import Detections, GroundTruth, read_detections, read_ground_truth
from cissod_bench.evaluation.tide import ERROR_TYPES, group_confusion, tide_errors


def noisy(truth: GroundTruth, seed: int) -> Detections:
    """Two detections near most objects, a third of them of another class, some without an area."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(truth.areas), 2 * len(truth.areas))
    boxes = truth.boxes[rows] + rng.normal(0, 0.15, (len(rows), 4)) * truth.boxes[rows][:, [2, 3, 2, 3]]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
    kinds = truth.box_class[rows].copy()
    for row in np.flatnonzero(rng.random(len(rows)) < 0.35):
        image = int(np.searchsorted(truth.image_ids, truth.box_image[rows[row]]))
        there = truth.box_class[truth.box_image == truth.box_image[rows[row]]].tolist()
        pools = (there, truth.negative[image], truth.not_exhaustive[image], truth.class_ids.tolist())
        pool = pools[rng.integers(4)] or there
        kinds[row] = rng.choice(np.intersect1d(pool, truth.class_ids))
    return Detections(truth.box_image[rows], kinds, boxes, rng.random(len(rows)))


@pytest.fixture
def lvis_file(shared) -> Path:
    return shared("lvis/lvis_val_100.json")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [300, 5])
def test_the_same_boxes_count_as_in_the_official_library(lvis_file: Path, seed: int, number: int) -> None:
    truth = read_ground_truth(lvis_file, lvis=True)
    detections = noisy(truth, seed)
    columns = zip(detections.box_image, detections.box_class, detections.boxes, detections.scores, strict=True)
    entries = [
        {"image_id": int(image), "category_id": int(kind), "bbox": box.tolist(), "score": float(score)}
        for image, kind, box, score in columns
    ]
    official = LVIS(str(lvis_file))
    evaluation = LVISEval(official, LVISResults(official, entries, max_dets=number), "bbox")
    evaluation._prepare()
    objects, found = only_what_counts(truth, detections, number)

    def counted(lists: dict) -> dict:
        return {pair: len(entries) for pair, entries in lists.items() if entries}

    def ours(boxes: GroundTruth | Detections) -> dict:
        pairs, counts = np.unique(np.column_stack((boxes.box_image, boxes.box_class)), axis=0, return_counts=True)
        return dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True))

    assert ours(objects) == counted(evaluation._gts)
    # The official library drops detections without an area while it evaluates.
    sized = {pair: [each for each in entries if each["area"] > 0] for pair, entries in evaluation._dts.items()}
    assert ours(found) == counted(sized)


@pytest.mark.parametrize("seed", range(3))
def test_types_add_up_to_the_librarys_totals(lvis_file: Path, seed: int) -> None:
    truth = read_ground_truth(lvis_file, lvis=True)
    detections = noisy(truth, seed)
    library = hotcoco_eval(truth, detections, 300, lvis=True)
    library.evaluate()
    ours = tide_errors(truth, detections, max_detections=300, lvis=True)
    totals = {name: int(ours.by_class[name].sum()) for name in ERROR_TYPES}
    assert totals == library.tide_errors()["counts"]
    assert min(totals[name] for name in ("Cls", "Loc", "Dupe", "Miss")) > 10


def scene(write) -> GroundTruth:
    """Image 1 holds an `a` and a `b`, certainly no `c`, perhaps more of `b`; nobody looked for `d`."""
    truth = {
        "images": [{"id": 1, "neg_category_ids": [3], "not_exhaustive_category_ids": [2]}],
        "categories": [{"id": index, "name": name} for index, name in enumerate("abcd", start=1)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "area": 10000},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [500, 0, 100, 100], "area": 10000},
        ],
    }
    return read_ground_truth(write("gt.json", truth), lvis=True)


@pytest.mark.parametrize(
    ("kind", "box", "error"),
    [
        (3, [0, 0, 100, 100], "Cls"),  # c on the object of a
        (3, [250, 0, 100, 100], "Bkg"),
        (2, [250, 0, 100, 100], None),  # may be a b that was not annotated
        (4, [0, 0, 100, 100], None),
        (4, [250, 0, 100, 100], None),
        (1, [250, 0, 100, 100], "Bkg"),
    ],
)
def test_only_classes_that_were_looked_for_can_be_wrong(write, kind: int, box: list[int], error: str | None) -> None:
    truth = scene(write)
    found = tide_errors(
        truth, read_detections([{"image_id": 1, "category_id": kind, "bbox": box, "score": 0.9}], truth), lvis=True
    )
    false = {name: counts[kind - 1] for name, counts in found.by_class.items() if name != "Miss" and counts.any()}
    assert false == ({} if error is None else {error: 1})
    assert found.correct.sum() == 0


def test_an_object_is_not_mistaken_for_a_class_that_nobody_looked_for(write) -> None:
    truth = scene(write)
    entries = [
        {"image_id": 1, "category_id": kind, "bbox": [0, 0, 100, 100], "score": score}
        for kind, score in ((4, 0.9), (1, 0.5))
    ]
    groups = {"f": ["a", "b"], "r": ["c", "d"]}
    detections = read_detections(entries, truth)
    taken_for = {lvis: group_confusion(truth, detections, groups, lvis=lvis)["f"] for lvis in (False, True)}
    assert taken_for[False] == {"correct": 0, "within": 0, "r": 1, "background": 1}
    assert taken_for[True] == {"correct": 1, "within": 0, "r": 0, "background": 1}
    assert json.dumps(taken_for[True])
    with pytest.raises(ValueError, match="overlap"):
        group_confusion(truth, detections, groups | {"official-f": ["a"]}, lvis=True)
