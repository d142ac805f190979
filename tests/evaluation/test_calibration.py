"""Calibration of scores against loops over the official library's matches, and its figures."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.evaluation.calibration import BINS, Reliability, reliability
from cissod_bench.evaluation.inputs import read_detections, read_ground_truth
from cissod_bench.leaderboard.figures.of_errors import calibration
from tests.evaluation.fuzzed import random_dataset

FOLDER = "results/cocoapi_val2014_100/"


def sample(shared: Callable[[str], Path]) -> list[Path]:
    """Annotations and results of the sample that comes with the COCO API."""
    return [shared(FOLDER + f"instances_val2014_{name}.json") for name in ("100", "fakebbox100_results")]


def naive(annotations: Path, results: Path, class_ids: set[int]) -> tuple[list[int], list[Any], list[Any], float]:
    """Count, mean score and precision of every bin and the calibration error, from pycocotools' matches at IoU 0.5."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(annotations.read_text())
        for number, box in enumerate(truth.dataset["annotations"], 1):
            box["id"] = number  # the library takes id 0 for "not matched"
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for cell in evaluation.evalImgs:
        if cell is None or cell["category_id"] not in class_ids:
            continue
        for score, matched, ignored in zip(cell["dtScores"], cell["dtMatches"][0], cell["dtIgnore"][0], strict=True):
            if not ignored:
                bins[min(int(score * BINS), BINS - 1)].append((score, matched > 0))
    total = sum(map(len, bins))
    scores = [sum(score for score, _ in each) / len(each) if each else None for each in bins]
    right = [sum(hit for _, hit in each) / len(each) if each else None for each in bins]
    gaps = (len(each) / total * abs(a - b) for each, a, b in zip(bins, scores, right, strict=True) if each)
    return list(map(len, bins)), scores, right, sum(gaps)


def assert_equal(found: Reliability, expected: tuple[list[int], list[Any], list[Any], float]) -> None:
    counts, scores, right, error = expected
    assert found.count.tolist() == counts
    for actual, wanted in ((found.score, scores), (found.precision, right)):
        np.testing.assert_allclose(actual, [np.nan if value is None else value for value in wanted], rtol=1e-12)
    assert found.error == pytest.approx(error, rel=1e-12)


def test_the_cocoapi_sample(shared):
    annotations, results = sample(shared)
    truth = read_ground_truth(annotations)
    first = [name for name, kind in zip(truth.class_names, truth.class_ids, strict=True) if kind <= 20]
    groups = {"all": truth.class_names, "first": first}
    found = reliability(truth, read_detections(results, truth), groups, max_detections=100, lvis=False)
    assert_equal(found["all"], naive(annotations, results, set(truth.class_ids.tolist())))
    assert_equal(found["first"], naive(annotations, results, set(range(21))))
    assert 0 < found["all"].error < 1


@pytest.mark.parametrize("seed", range(5))
def test_random_sets_with_crowds(seed, write):
    dataset, results = random_dataset(seed, images=15)
    annotations = write("gt.json", dataset)
    truth = read_ground_truth(annotations)
    found = reliability(
        truth, read_detections(results, truth), {"all": truth.class_names}, max_detections=100, lvis=False
    )
    assert_equal(found["all"], naive(annotations, write("dt.json", results), set(truth.class_ids.tolist())))


def test_no_detection_has_no_error(write):
    dataset, _ = random_dataset(1, images=3)
    truth = read_ground_truth(write("gt.json", dataset))
    found = reliability(truth, read_detections([], truth), {"all": truth.class_names}, max_detections=100, lvis=False)
    assert found["all"].error is None
    assert np.isnan(found["all"].score).all()


def test_a_score_of_one_is_in_the_last_bin_and_above_one_is_refused(write):
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}
    dataset = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, **box}]}
    truth = read_ground_truth(write("gt.json", dataset))
    results = [{**box, "score": 1.0}]
    groups = {"all": truth.class_names}
    found = reliability(truth, read_detections(results, truth), groups, max_detections=100, lvis=False)
    assert found["all"].count.tolist() == [0] * (BINS - 1) + [1]
    with pytest.raises(UserError, match=r"score 1\.5 is above 1"):
        reliability(
            truth, read_detections([{**results[0], "score": 1.5}], truth), groups, max_detections=100, lvis=False
        )


def test_the_plot_has_the_bins_in_percent():
    count = np.array([2, 0, 0, 0, 0, 0, 0, 0, 0, 2])
    score = np.array([0.05, *[np.nan] * 8, 0.95])
    figure = calibration({"all": Reliability(count, score, np.array([0.5, *[np.nan] * 8, 1.0]))})
    (axes,) = figure.axes
    line = axes.get_lines()[1]
    np.testing.assert_allclose(line.get_xydata(), [[5, 50], [95, 100]])
    assert line.get_label() == "all classes (error 25.0)"


def test_the_command_shows_and_draws_it(shared, tmp_path):
    annotations, results = sample(shared)
    given = ["eval", "--predictions", str(results), "--task", "coco-split1", "--annotations", str(annotations)]
    plot = tmp_path / "calibration.svg"
    done = CliRunner().invoke(app, [*given, "--calibration-plot", str(plot), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["calibration"]
    assert set(found) == {"all", "maj", "min"}
    error = naive(annotations, results, set(range(91)))[3]
    assert found["all"]["expected_calibration_error"] == pytest.approx(error)
    assert plot.read_bytes().startswith(b"<?xml")
    shown = CliRunner().invoke(app, [*given, "--calibration"])
    assert f"Expected calibration error in percent: all {100 * error:.1f}" in " ".join(shown.output.split())
    wrong = CliRunner().invoke(app, [*given, "--calibration-plot", "x.jpg"])
    assert "ends in .png, .svg or .pdf" in str(wrong.exception)
