"""The bootstrap over images: weighted AP against the official library on repeated images, and its coverage."""

import copy

import numpy as np
import pytest

from cissod_bench.evaluation import evaluate
from cissod_bench.evaluation.bootstrap import (
    Interval,
    WeightedAP,
    bootstrap_ap,
    group_interval,
    image_samples,
)
from cissod_bench.evaluation.inputs import read_detections, read_ground_truth
from cissod_bench.evaluation.matches import Matches, match
from tests.evaluation.fuzzed import random_dataset


def matched(write, dataset, found, **rules):
    truth = read_ground_truth(write("gt.json", dataset), lvis=rules.get("lvis", False))
    return truth, match(truth, read_detections(found, truth), **rules)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("max_detections", [100, 3])
def test_with_weights_of_one_it_is_the_official_ap(write, seed, lvis, max_detections):
    dataset, found = random_dataset(seed, lvis=lvis, detected=seed != 5)
    truth, matches = matched(write, dataset, found, lvis=lvis, max_detections=max_detections)
    rules = {"evaluator": "lvis" if lvis else "pycocotools", "lvis": lvis, "max_detections": max_detections}
    official = evaluate(truth.path, found, {}, **rules).per_class()["AP"]
    np.testing.assert_allclose(WeightedAP(matches)(np.ones(matches.images)), official, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_repeated_images(write, seed):
    """pycocotools on a data set that holds each image as often as the weight says gives the same AP."""
    dataset, found = random_dataset(seed, images=10)
    rng = np.random.default_rng(seed)
    for entry in found:
        entry["score"] = float(rng.random())  # between equal scores, the order of repeated images would decide
    truth, matches = matched(write, dataset, found)
    weights = rng.integers(0, 4, matches.images)
    repeated = {"images": [], "annotations": [], "categories": dataset["categories"]}
    repeated_found = []
    for image, weight in zip(truth.image_ids.tolist(), weights.tolist(), strict=True):
        for number in range(weight):
            new = image * 10 + number
            repeated["images"].append({"id": new})
            for source, target in ((dataset["annotations"], repeated["annotations"]), (found, repeated_found)):
                target += [copy.copy(entry) | {"image_id": new} for entry in source if entry["image_id"] == image]
    official = evaluate(write("r.json", repeated), repeated_found, {}, evaluator="pycocotools").per_class()["AP"]
    np.testing.assert_allclose(WeightedAP(matches)(weights.astype(float)), official, atol=1e-12)


def test_samples_draw_as_many_images_as_there_are_and_always_the_same():
    samples = image_samples(50, 200)
    assert samples.sum(axis=1).tolist() == [50] * 200
    np.testing.assert_array_equal(samples, image_samples(50, 200))
    assert not np.array_equal(samples, image_samples(50, 200, seed=1))
    assert samples.var() == pytest.approx(1 - 1 / 50, rel=0.05)


def test_a_class_without_objects_has_no_value(write):
    dataset, found = random_dataset(0)
    _, matches = matched(write, dataset, found)
    sampled = bootstrap_ap(matches, image_samples(matches.images, 20))
    estimate = WeightedAP(matches)(np.ones(matches.images))
    empty = int(np.flatnonzero(np.isnan(estimate))[0])
    assert np.isnan(sampled[:, empty]).all()
    assert group_interval(estimate, sampled, [empty]) is None
    with_empty = group_interval(estimate, sampled, range(len(estimate)))
    assert with_empty.value == pytest.approx(np.nanmean(estimate))


def test_group_interval_against_its_definition():
    estimate = np.array([0.5, 0.1, np.nan])
    sampled = np.array([[0.4, 0.2, np.nan], [0.6, np.nan, np.nan], [np.nan, 0.1, np.nan]])
    found = group_interval(estimate, sampled, [0, 1, 2])
    means = [0.3, 0.6, 0.1]
    assert found == Interval(pytest.approx(0.3), pytest.approx(np.std(means, ddof=1)))
    assert found.high - found.value == pytest.approx(1.96 * found.std, rel=1e-4)
    assert not found.excludes_zero
    assert Interval(0.1, 0.01).excludes_zero
    assert Interval(-0.1, 0.01).excludes_zero


def simulated(rng: np.random.Generator, skill: float, images: int) -> Matches:
    """Images of a made-up detector on 3 classes: most objects are found, with scores a little above those of errors."""
    truth_kind = rng.integers(0, 3, 4 * images)
    truth_image = rng.integers(0, images, 4 * images)
    quality = rng.random(4 * images) * skill  # matched at every threshold below its quality
    found = rng.random(4 * images) < 0.9
    wrong = 8 * images
    image = np.concatenate([truth_image[found], rng.integers(0, images, wrong)])
    kind = np.concatenate([truth_kind[found], rng.integers(0, 3, wrong)])
    score = np.concatenate([rng.beta(3, 2, int(found.sum())), rng.beta(2, 3, wrong)])
    best = np.concatenate([quality[found], np.full(wrong, -1.0)])
    order = np.lexsort((-score, kind))
    hits = np.linspace(0, 0.45, 10)[:, None] < best[order]
    return Matches(
        images, 3, image[order], kind[order], score[order], hits, np.zeros_like(hits), truth_image, truth_kind
    )


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_covers_as_often_as_it_says(paired):
    """120 validation sets of 60 images: about 95 % of the intervals hold the expected AP, or difference of APs.

    Two runs share their images and most of their errors. Two standard deviations of a share of 95 % in 120 trials
    are 4 points.
    """
    images, trials = 60, 120
    estimates, intervals = [], []
    samples = image_samples(images, 40)
    for trial in range(trials):
        estimate, sampled = np.zeros(3), np.zeros((40, 3))
        for skill, sign in ((1.0, 1), (0.8, -1)) if paired else ((1.0, 1),):
            matches = simulated(np.random.default_rng(trial), skill, images)
            estimate = estimate + sign * WeightedAP(matches)(np.ones(images))
            sampled = sampled + sign * bootstrap_ap(matches, samples)
        estimates.append(estimate.mean())
        intervals.append(group_interval(estimate, sampled, [0, 1, 2]))
    covered = np.mean([interval.low <= np.mean(estimates) <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.99
