"""AP Fixed against its definition, written as loops: matching by LVIS's rules, and 101 points of recall."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.evaluation import evaluate
from cissod_bench.evaluation.fixed import best_of_each_class
from cissod_bench.evaluation.inputs import Detections

LVIS_SAMPLE = "lvis/lvis_val_100.json"


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def naive_ap(truth: dict[str, Any], results: list[dict[str, Any]], kind: int, per_class: int) -> float | None:
    """AP of a class over IoU 0.50 to 0.95: the best `per_class` detections over all images, in all their images."""
    mine = sorted((each for each in results if each["category_id"] == kind), key=lambda each: -each["score"])
    mine = mine[:per_class]
    objects: dict[int, list[list[float]]] = {}
    for box in truth["annotations"]:
        if box["category_id"] == kind and box["area"] > 0:
            objects.setdefault(box["image_id"], []).append(box["bbox"])
    total = sum(map(len, objects.values()))
    if not total:
        return None
    negative = {image["id"] for image in truth["images"] if kind in image["neg_category_ids"]}
    partial = {image["id"] for image in truth["images"] if kind in image["not_exhaustive_category_ids"]}
    precisions = []
    for limit in np.linspace(0.5, 0.95, 10):
        taken: dict[int, set[int]] = {image: set() for image in objects}
        hits: list[bool] = []
        for found in mine:
            image = found["image_id"]
            if found["bbox"][2] * found["bbox"][3] <= 0 or (image not in objects and image not in negative):
                continue
            overlaps = [overlap(found["bbox"], box) for box in objects.get(image, [])]
            free = [place for place, value in enumerate(overlaps) if value >= limit and place not in taken[image]]
            if free:
                # Of equal overlaps the last one, as in pycocotools.
                best = max(free, key=lambda place: (overlaps[place], place))
                taken[image].add(best)
            elif image in partial:
                continue
            hits.append(bool(free))
        right = np.cumsum(hits)
        recall, precision = right / total, right / np.arange(1, len(hits) + 1)
        for level in np.linspace(0, 1, 101):
            reached = [value for value, at in zip(precision, recall, strict=True) if at >= level]
            precisions.append(max(reached, default=0.0))
    return float(np.mean(precisions))


def detections_on(truth: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Objects with noise on boxes and classes, and many false ones in each image, of scores with three digits."""
    generator = np.random.default_rng(seed)
    kinds = [category["id"] for category in truth["categories"]]
    common = generator.choice(kinds, 12)
    results = []
    for box in truth["annotations"]:
        for _ in range(2):
            noisy = (np.array(box["bbox"]) * generator.normal(1, 0.08, 4)).clip(min=0).tolist()
            kind = box["category_id"] if generator.random() < 0.8 else int(generator.choice(common))
            results.append({"image_id": box["image_id"], "category_id": kind, "bbox": noisy})
    for image in truth["images"]:
        for _ in range(30):
            place = [*generator.uniform(0, 300, 2).tolist(), *generator.uniform(5, 200, 2).tolist()]
            results.append({"image_id": image["id"], "category_id": int(generator.choice(common)), "bbox": place})
    order = generator.permutation(len(results))
    scores = generator.permutation(len(results)) / len(results)  # all different: ties are the libraries' own business
    return [{**results[index], "score": float(score)} for index, score in zip(order, scores, strict=True)]


@pytest.mark.parametrize("per_class", [20, 10_000])
def test_ap_of_every_class_of_the_lvis_sample(per_class: int, shared: Any, write: Any) -> None:
    path: Path = shared(LVIS_SAMPLE)
    truth = json.loads(path.read_text())
    results = detections_on(truth, 1)
    found = evaluate(path, write("dt.json", results), {}, lvis=True, per_class=per_class)
    per_kind = found.per_class()["AP"]
    compared = 0
    for kind, ap in zip(found.class_ids.tolist(), per_kind, strict=True):
        expected = naive_ap(truth, results, kind, per_class)
        assert (expected is None) == np.isnan(ap)
        if expected is not None:
            assert ap == pytest.approx(expected, abs=1e-12), kind
            compared += 1
    assert compared > 100
    capped = evaluate(path, write("dt.json", results), {}, lvis=True, max_detections=10).per_class()["AP"]
    assert not np.allclose(capped, per_kind, equal_nan=True), "with another rule it is another number"


def test_the_best_of_each_class_stay_in_their_order_and_ties_go_to_the_first() -> None:
    kinds, scores = [1, 2, 1, 1, 2, 1], [0.5, 0.1, 0.9, 0.5, 0.3, 0.2]
    numbers = np.arange(6)
    kept = best_of_each_class(Detections(numbers, np.array(kinds), np.zeros((6, 4)), np.array(scores)), 2)
    assert kept.box_image.tolist() == [0, 1, 2, 4]


def test_the_command(shared: Any, write: Any, tmp_path: Path) -> None:
    path: Path = shared(LVIS_SAMPLE)
    truth = json.loads(path.read_text())
    results = detections_on(truth, 2)
    split = tmp_path / "split"
    make = ["make-splits", "--task", "lvis", "--annotations", str(path), "--out", str(split), "--no-plot", "--no-cache"]
    made = CliRunner().invoke(app, make)
    assert made.exit_code == 0, made.output
    predictions = write("dt.json", results)
    given = ["eval", "--split", str(split), "--predictions", str(predictions), "--annotations", str(path), "--fixed-ap"]
    done = CliRunner().invoke(app, [*given, "--json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert (content["max_detections"], content["max_detections_per_class"]) == (None, 10_000)
    kinds = {box["category_id"] for box in truth["annotations"]}
    expected = np.mean([ap for kind in kinds if (ap := naive_ap(truth, results, kind, 10_000)) is not None])
    assert content["metrics"]["all"]["AP"] == pytest.approx(expected)
    shown = " ".join(CliRunner().invoke(app, given).output.split())
    assert "AP Fixed: 10,000 detections per class over all images" in shown
    assert "are not cut for each image" in shown
    refused = CliRunner().invoke(app, [*given, "--max-detections", "300"])
    assert "no cap on detections in an image" in str(refused.exception)


def test_other_rules_have_no_fixed_ap(write: Any) -> None:
    given = ["eval", "--predictions", str(write("dt.json", [])), "--task", "coco-split1", "--fixed-ap"]
    assert "AP Fixed is a rule of LVIS" in str(CliRunner().invoke(app, given).exception)
