"""Precision and recall of pseudo labels against a loop and against COCO's own matching."""

import json
from pathlib import Path

import numpy as np
import pytest

from cissod_bench.evaluation.groups import evaluate
from cissod_bench.evaluation.pseudo_labels import (
    count_matches,
    precision_recall_of_groups,
    read_hidden_labels,
)


def boxes_of(generator: np.random.Generator, count: int) -> np.ndarray:
    corners = generator.integers(0, 20, (count, 2)).astype(float)
    return np.concatenate([corners, corners + generator.integers(5, 15, (count, 2))], axis=1)


def naive(boxes, labels, scores, true_boxes, true_labels, num_classes):  # type: ignore[no-untyped-def]
    counts = [[0] * num_classes for _ in range(3)]
    for label in labels:
        counts[1][label] += 1
    for label in true_labels:
        counts[2][label] += 1
    free = list(range(len(true_labels)))
    for _, index in sorted((-score, index) for index, score in enumerate(scores)):
        best, which = -1.0, None
        for other in free:
            if true_labels[other] != labels[index]:
                continue
            a, b = boxes[index], true_boxes[other]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if shared / union > best:
                best, which = shared / union, other
        if which is not None and best >= 0.5:
            free.remove(which)
            counts[0][labels[index]] += 1
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_counts_against_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    given, annotated = generator.integers(0, 12, 2)
    arguments = (
        boxes_of(generator, given),
        generator.integers(0, 3, given),
        generator.permutation(given) / 12,
        boxes_of(generator, annotated),
        generator.integers(0, 3, annotated),
        3,
    )
    assert count_matches(*arguments).tolist() == naive(*arguments)


def test_recall_is_that_of_coco_for_one_class(tmp_path: Path) -> None:
    """COCO's recall at overlap 0.5 over all detections is right / annotated."""
    generator = np.random.default_rng(0)
    truth, detections, counts = [], [], np.zeros((3, 1), dtype=np.int64)
    for image in range(1, 21):
        true_boxes, boxes = boxes_of(generator, 4), boxes_of(generator, 6)
        boxes[:3] = true_boxes[:3] + generator.integers(-1, 2, (3, 4))
        scores = generator.random(6)
        for box in true_boxes:
            size = box[2:] - box[:2]
            truth.append({"image_id": image, "category_id": 7, "bbox": [*box[:2], *size], "area": float(size.prod())})
        detections += [
            {"image_id": image, "category_id": 7, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
            for box, score in zip(boxes, scores, strict=True)
        ]
        zeros = np.zeros(6, dtype=np.int64)
        counts += count_matches(boxes, zeros, scores, true_boxes, zeros[:4], 1)
    file = tmp_path / "truth.json"
    content = {
        "images": [{"id": image, "width": 40, "height": 40} for image in range(1, 21)],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [{**entry, "id": number, "iscrowd": 0} for number, entry in enumerate(truth, 1)],
    }
    file.write_text(json.dumps(content))
    recall = evaluate(file, detections, {}, evaluator="pycocotools").recall[0, 0, 0]
    assert precision_recall_of_groups(counts, {"all": [0]})["all"][1] == pytest.approx(recall)
    hidden = read_hidden_labels(file, ("other", "thing"))
    assert len(hidden.boxes[3]) == 4
    assert hidden.labels[3].tolist() == [1] * 4


def test_groups_leave_out_classes_without_a_value() -> None:
    counts = np.array([[2, 0, 0], [4, 0, 0], [8, 5, 0]])
    found = precision_recall_of_groups(counts, {"both": [0, 1], "none": [2]})
    assert found["both"] == (0.5, 0.125)
    assert np.isnan(found["none"]).all()


def test_hidden_labels_are_read_as_the_splits_read_annotations(tmp_path: Path) -> None:
    """Without sizes, with placeholders and names that differ in white space; none of it stops a run."""
    boxes = [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": None},
        {"id": 3, "image_id": 7, "category_id": 2, "bbox": [1, 2, 0, 4]},
        {"id": 4, "image_id": 8, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 6, "image_id": 7, "category_id": 2, "bbox": [5, 5, 5, 5], "iscrowd": True},
    ]
    classes = [{"id": 2, "name": "b "}, {"id": 9, "name": "c"}]
    path = tmp_path / "hidden.json"
    path.write_text(json.dumps({"images": [{"id": 7}], "annotations": boxes, "categories": classes}))
    hidden = read_hidden_labels(path, ("a", "b"))
    assert {image: found.tolist() for image, found in hidden.boxes.items()} == {7: [[1, 2, 4, 6]]}
    assert hidden.labels[7].tolist() == [1]
