"""The focal baseline against a loop in float64, and its ends."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from cissod_bench.baselines.focal import Options, SoftmaxFocal, configure
from cissod_bench.errors import UserError
from cissod_bench.methods.registry import get_method
from tests.methods.plain import CONTEXT
from tests.methods.samples import Rois, feed, steps

N = 4


def naive(call: Rois, gamma: float) -> tuple[float, np.ndarray]:
    value, gradient = 0.0, np.zeros_like(call.logits)
    for j, target in enumerate(call.labels):
        scores = np.exp(call.logits[j]) / np.exp(call.logits[j]).sum()
        p = scores[target]
        value -= call.weights[j] * (1 - p) ** gamma * math.log(p)
        # d f / d p, then d p / d x of the softmax
        slope = -((1 - p) ** gamma) / p + gamma * (1 - p) ** (gamma - 1) * math.log(p)
        for k in range(N + 1):
            gradient[j, k] = call.weights[j] * slope * p * ((k == target) - scores[k]) / call.avg_factor
    return value / call.avg_factor, gradient


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_values_and_gradients_equal_the_naive_loop(gamma: float) -> None:
    loss = SoftmaxFocal(gamma)
    for call in (call for calls in steps(N, N + 1) for call in calls):
        value, gradient = naive(call, gamma)
        actual, actual_gradient = feed(loss, call)
        assert actual.item() == pytest.approx(value, rel=2e-5)
        np.testing.assert_allclose(actual_gradient, gradient, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_saturated_logits_give_finite_values_and_gradients(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    value = SoftmaxFocal(gamma)(logits, torch.tensor([0, 1, 0]), avg_factor=1.0)
    value.backward()
    assert value.item() == pytest.approx(400 + 0.5**gamma * math.log(2), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0].tolist() == [0.0, 0.0]


def test_gamma_zero_is_cross_entropy() -> None:
    call = steps(N, N + 1)[0][0]
    logits, labels = torch.tensor(call.logits, dtype=torch.float32), torch.tensor(call.labels)
    torch.testing.assert_close(SoftmaxFocal(0.0)(logits, labels), functional.cross_entropy(logits, labels))


def test_labelled_images_repeat_only_where_asked() -> None:
    assert configure(CONTEXT, Options()).labeled_repeat is None
    assert configure(CONTEXT, Options(rfs=True)).labeled_repeat == CONTEXT.rfs_threshold
    assert configure(CONTEXT, Options(rfs=True, threshold=0.01)).labeled_repeat == 0.01


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(UserError, match=r"'focal': Expected `float` >= 0.0 - at `\$.gamma`"):
        get_method("focal").options({"gamma": -1.0})
