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


class ReleaseMean:
    """The mean score of one class as the release keeps it, one detection after another."""

    def __init__(self, eta: float, cold_start: str) -> None:
        self.eta, self.cold_start = eta, cold_start
        self.value, self.total, self.count = 0.0, 0.0, 0

    def see(self, score: float) -> None:
        """One detection."""
        self.count += 1
        if self.count <= 1000:
            self.total += score
            self.value = self.total / (1000 if self.cold_start == "count" else self.count)
        else:
            self.value = self.eta * self.value + (1 - self.eta) * score


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("cold_start", ["mean", "count"])
def test_mean_scores_against_a_loop_over_detections(cold_start: str, rising: bool) -> None:
    """Up to 39 detections of a class in an iteration, across the 1,000th; those of one iteration count as their mean.

    The formula before was off by 8 % on rising scores.
    """
    policy = ClassThreshold(4, policy="score", eta=0.999, cold_start=cold_start)  # type: ignore[arg-type]
    loops = [ReleaseMean(0.999, cold_start) for _ in range(4)]
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        found = int(torch.randint(0, 60, (1,), generator=generator))
        labels = torch.randint(0, 3, (found,), generator=generator)  # class 3 is never detected
        labels[labels == 1] *= int(step % 10 == 0)  # class 1 never gets to 1,000 detections
        scores = torch.rand(found, generator=generator) * (step / 150 if rising else 1.0)
        policy.update(labels, scores)
        for label, loop in enumerate(loops):
            mine = scores[labels == label].double().tolist()
            for _ in mine:
                loop.see(sum(mine) / len(mine))
        expected = torch.tensor([loop.value for loop in loops])
        torch.testing.assert_close(policy.mean_scores(), expected, rtol=1e-4, atol=1e-6)
    assert [loop.count > 1000 for loop in loops] == [True, False, True, False]
    assert policy.mean_scores()[3] == 0


@pytest.mark.parametrize("cold_start", ["mean", "count"])
def test_single_detections_are_the_loop_exactly(cold_start: str) -> None:
    policy, loop = ClassThreshold(1, eta=0.99, cold_start=cold_start), ReleaseMean(0.99, cold_start)  # type: ignore[arg-type]
    for score in torch.rand(1200, generator=torch.Generator().manual_seed(0)):
        policy.update(torch.tensor([0]), score[None])
        loop.see(float(score))
        assert float(policy.mean_scores()[0]) == pytest.approx(loop.value, rel=1e-5)


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
