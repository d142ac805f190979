"""Threshold policies against loops and the numbers of the release."""

import math

import pytest
import torch

from cissod_bench.methods.gbs.gbt import ClassThreshold, gradient_thresholds, score_thresholds
from cissod_bench.ssod.thresholds import FixedThreshold


def test_score_thresholds_by_hand() -> None:
    """Mean scores .3, .2, .1: 0.9 * s / 0.2 = 1.35, 0.9, 0.45, bounded to 0.9, 0.9, 0.5."""
    raw = score_thresholds(torch.tensor([0.3, 0.2, 0.1]), 0.9)
    torch.testing.assert_close(raw, torch.tensor([1.35, 0.9, 0.45]))
    torch.testing.assert_close(raw.clamp(0.5, 0.9), torch.tensor([0.9, 0.9, 0.5]))


def test_gradient_thresholds_by_hand() -> None:
    weights = torch.tensor([0.5, 1.0, 1.5, 1.8, 3.0, 0.4])
    expected = torch.tensor([0.9, 0.9, 0.6, 0.5, 0.3])
    torch.testing.assert_close(gradient_thresholds(weights, 0.9), expected)


@pytest.mark.parametrize("cold_start", ["mean", "count"])
def test_mean_scores_against_a_loop(cold_start: str) -> None:
    policy = ClassThreshold(4, policy="score", eta=0.9, cold_start=cold_start)  # type: ignore[arg-type]
    sums, masses, counts = [0.0] * 4, [0.0] * 4, [0] * 4
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = int(torch.randint(0, 12, (1,), generator=generator))
        labels = torch.randint(0, 3, (found,), generator=generator)  # class 3 is never detected
        scores = torch.rand(found, generator=generator)
        policy.update(labels, scores)
        for c in range(4):
            mine = [float(score) for label, score in zip(labels, scores, strict=True) if label == c]
            if mine:
                keep = 0.9 ** len(mine)
                sums[c] = keep * sums[c] + (1 - keep) * sum(mine) / len(mine)
                masses[c] = keep * masses[c] + (1 - keep)
                counts[c] += len(mine)
        expected = [s / m if m else 0.0 for s, m in zip(sums, masses, strict=True)]
        if cold_start == "count":
            expected = [value * min(count / 1000, 1.0) for value, count in zip(expected, counts, strict=True)]
        torch.testing.assert_close(policy.mean_scores(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert policy.mean_scores()[3] == 0


def test_a_young_average_is_the_plain_mean() -> None:
    """The bias-corrected average of few detections is their mean to first order in 1 - eta."""
    policy = ClassThreshold(1, policy="score")
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for score in scores:
        policy.update(torch.tensor([0]), score[None])
    assert float(policy.mean_scores()[0]) == pytest.approx(float(scores.mean()), rel=0.02)


@pytest.mark.parametrize("policy", ["score", "gradient", "gbt"])
def test_policies_against_a_loop(policy: str) -> None:
    threshold = ClassThreshold(5, policy=policy, warmup=10)  # type: ignore[arg-type]
    means = [0.8, 0.5, 0.2, 0.05, 0.0]
    for c, mean in enumerate(means[:4]):
        threshold.update(torch.full((30,), c), torch.full((30,), mean))
    weights = torch.tensor([0.4, 1.0, 1.3, 4.0, 5.0, 0.4])
    actual = threshold.thresholds(10, weights)
    for c in range(5):
        by_score = 0.9 * means[c] / (sum(means) / 5)
        by_gradient = min(0.9, 0.9 / float(weights[c]))
        value = {"score": by_score, "gradient": by_gradient, "gbt": min(by_score, by_gradient)}[policy]
        assert float(actual[c]) == pytest.approx(min(max(value, 0.5), 0.9), rel=1e-5)
    assert (threshold.thresholds(9, weights) == 0.9).all(), "the warm-up uses the fixed threshold"


def test_without_any_detection_the_threshold_is_theta() -> None:
    assert (ClassThreshold(3, policy="score").thresholds(0, None) == 0.9).all()


def test_a_gradient_policy_without_class_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a loss with class weights"):
        ClassThreshold(3).thresholds(0, None)


def test_fixed() -> None:
    threshold = FixedThreshold(3, 0.7)
    threshold.update(torch.tensor([0]), torch.tensor([1.0]))
    assert threshold.thresholds(0, None).tolist() == pytest.approx([0.7] * 3)
    assert not threshold.state_dict(), "nothing to save"


def test_order_of_detections_does_not_matter() -> None:
    labels, scores = torch.tensor([0, 1, 0, 2, 1, 0]), torch.rand(6)
    one, other = ClassThreshold(3), ClassThreshold(3)
    one.update(labels, scores)
    order = torch.tensor([5, 3, 0, 1, 4, 2])
    other.update(labels[order], scores[order])
    torch.testing.assert_close(one.mean_scores(), other.mean_scores())
    assert math.isfinite(float(one.mean_scores().sum()))
