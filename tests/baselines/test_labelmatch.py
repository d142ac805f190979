"""Rank-based thresholds against sorted lists of exact ranks, over a window that slides."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from cissod_bench.baselines.labelmatch import Options, configure
from cissod_bench.errors import UserError
from cissod_bench.methods.rank_threshold import RankThreshold, scores_at_ranks
from cissod_bench.methods.registry import get_method
from tests.methods.plain import CONTEXT

COUNTS, IMAGES, WINDOW = [653, 26, 0, 9], 100, 30
Image = list[tuple[int, float]]


def images(seed: int, number: int) -> list[Image]:
    """Detections of some images, best first; class 3 is never found, some images are empty."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(number):
        size = generator.integers(0, 8)
        scores = np.sort(generator.uniform(0.05, 1, size).astype(np.float32))[::-1]
        result.append([(int(generator.integers(0, 3)), float(score)) for score in scores])
    return result


def update(policy: RankThreshold, batch: list[Image]) -> None:
    policy.update(
        torch.tensor([label for image in batch for label, _ in image], dtype=torch.long),
        torch.tensor([score for image in batch for _, score in image], dtype=torch.float32),
        [len(image) for image in batch],
    )


def build(**changes: object) -> RankThreshold:
    expected = [max(count, 1) / IMAGES for count in COUNTS]
    return RankThreshold(4, expected, **{"window": WINDOW, "interval": 1, **changes})


def naive(window: list[Image]) -> list[float]:
    thresholds = []
    for c, count in enumerate(COUNTS):
        rank = int(Fraction(len(window) * max(count, 1), IMAGES) * Fraction(1, 5))
        scores = sorted((score for image in window for label, score in image if label == c), reverse=True)
        thresholds.append(max(0.05, scores[min(rank, len(scores) - 1)]) if scores else 0.05)
    return thresholds


def test_thresholds_equal_sorted_lists_while_the_window_slides() -> None:
    policy = build()
    history: list[Image] = []
    for step in range(12):
        batch = images(step, 7)
        history += batch
        update(policy, batch)
        expected = naive(history[-WINDOW:])
        np.testing.assert_allclose(policy.thresholds(step, None), expected, rtol=1e-6, err_msg=f"step {step}")
    assert naive(history[-WINDOW:])[3] == 0.05, "a class without detections"


def test_a_score_at_the_threshold_counts() -> None:
    policy = build()
    update(policy, [[(2, 0.75), (2, 0.5)]])  # no labelled box: rank 0, so exactly the best one counts
    threshold = policy.thresholds(0, None)[2]
    assert torch.tensor(0.75) > threshold > torch.tensor(0.7499)


def test_the_fixed_threshold_rules_until_the_window_is_full_or_the_warmup_over() -> None:
    policy = build(warmup=5)
    for iteration in range(5):  # 5 x 4 images < 30
        update(policy, images(iteration, 4))
        assert policy.thresholds(iteration, None).tolist() == pytest.approx([0.9] * 4)
    update(policy, images(5, 4))
    assert policy.thresholds(5, None)[3].item() == pytest.approx(0.05)
    late = build(warmup=5)  # after a burn-in: the iterations count in which there were detections
    update(late, images(0, 4))
    assert late.thresholds(700, None).tolist() == pytest.approx([0.9] * 4)
    early = build(warmup=1000)
    update(early, images(0, WINDOW))
    assert early.thresholds(0, None)[3].item() == pytest.approx(0.05)
    assert build().thresholds(0, None).tolist() == pytest.approx([0.9] * 4), "nothing seen yet"


def test_thresholds_move_at_intervals_and_come_back_from_the_state() -> None:
    policy = build(interval=3)
    update(policy, images(0, 9))
    first = policy.thresholds(0, None).clone()
    update(policy, images(1, 30))
    assert torch.equal(policy.thresholds(1, None), first)
    other = build(interval=3)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other.thresholds(2, None), first)
    assert not torch.equal(policy.thresholds(3, None), first)
    assert torch.equal(other.thresholds(3, None), policy.thresholds(3, None))


def test_more_detections_than_kept_leave_the_best() -> None:
    policy = RankThreshold(1, [1000.0], window=2, fraction=1.0, interval=1)
    crowd = [(0, 1 - index / 1000) for index in range(150)]
    update(policy, [crowd, [(0, 0.2)]])
    assert (policy.labels[0] == 0).all()
    assert policy.scores[0].min().item() == pytest.approx(1 - 99 / 1000)
    assert policy.thresholds(0, None).item() == pytest.approx(0.2), "the last of the class where the rank is beyond"


def test_ranks_of_a_worked_example() -> None:
    scores = torch.tensor([0.3, 0.9, 0.5, 0.7, 0.0])
    labels = torch.tensor([0, 0, 1, 0, 3])
    found = scores_at_ranks(labels, scores, torch.tensor([1, 5, 0]))
    assert found.tolist() == pytest.approx([0.7, 0.5, 0.0])


def test_numbers_of_coco_split_1() -> None:
    """Person has 653 boxes in 10170 labelled images, sheep 2: ranks in 10000 images."""
    policy = RankThreshold(2, [653 / 10170, 2 / 10170])
    assert (policy.expected * 10_000).floor().tolist() == [128, 0]


def test_parts_count_the_labelled_boxes_with_a_floor_of_one() -> None:
    threshold = configure(CONTEXT, Options()).threshold
    assert threshold["boxes_per_image"] == [1 / 40, *(count / 40 for count in range(1, 12))]
    assert threshold["warmup"] == 7


def test_gbs_takes_the_same_thresholds_not_below_the_initial_filter() -> None:
    gbs = get_method("gbs")
    threshold = gbs.configure(CONTEXT, gbs.options({"threshold": "labelmatch"})).threshold
    expected = configure(CONTEXT, Options()).threshold
    assert all(expected[name] == value for name, value in threshold.items() if name != "lowest")
    assert threshold["lowest"] == 0.5
    defaults = RankThreshold(12, threshold["boxes_per_image"])
    assert (defaults.window, defaults.interval) == (expected["window"], expected["interval"])


def test_an_option_outside_its_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"'labelmatch': Expected `int` >= 1 - at `\$.window`"):
        get_method("labelmatch").options({"window": 0})
