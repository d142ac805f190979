"""EQLv2 against a loop in float64 written from its formulas, and against mmdet where mmdet is right."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from cissod_bench.baselines.eqlv2 import PRIOR_BIAS, EqualizationLossV2, Options, configure
from cissod_bench.ssod.model.roi_head import class_scores
from tests.methods.plain import CONTEXT, teacher_student_of
from tests.methods.samples import Rois, feed, rois, steps
from tests.ssod.models import batch, teacher_student

N = 6


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class Naive:
    """One RoI and one output at a time."""

    def __init__(self, unsup_factor: float = 1.0) -> None:
        self.unsup_factor = unsup_factor
        self.positive, self.negative = [0.0] * N, [0.0] * N
        self.ratio = [100.0] * N

    def iteration(self, calls: list[Rois]) -> list[tuple[float, np.ndarray]]:
        results, pending = [], []
        for call in calls:
            value, gradient = 0.0, np.zeros_like(call.logits)
            for j in range(len(call.labels)):
                for k in range(N + 1):
                    f = 1.0 if k == N else sigmoid(12 * (self.ratio[k] - 0.8))
                    hit = call.labels[j] == k
                    weight = 1 + 4 * (1 - f) if hit else f
                    p = sigmoid(call.logits[j, k])
                    value -= call.weights[j] * weight * math.log(p if hit else 1 - p)
                    slope = call.weights[j] * weight * (p - 1 if hit else p)
                    gradient[j, k] = slope / call.avg_factor
                    if k < N:
                        factor = self.unsup_factor if call.name == "unsup" else 1.0
                        pending.append((hit, k, factor * abs(slope)))
            results.append((value / call.avg_factor, gradient))
        for hit, k, amount in pending:
            (self.positive if hit else self.negative)[k] += amount
        self.ratio = [p / (n + 1e-10) for p, n in zip(self.positive, self.negative, strict=True)]
        return results


@pytest.mark.parametrize("unsup_factor", [1.0, 4.0])
def test_values_gradients_and_state_equal_the_naive_loop_over_several_steps(unsup_factor: float) -> None:
    loss, naive = EqualizationLossV2(N, unsup_factor=unsup_factor), Naive(unsup_factor)
    for iteration, calls in enumerate(steps(N, N + 1)):
        for call, (value, gradient) in zip(calls, naive.iteration(calls), strict=True):
            actual, actual_gradient = feed(loss, call)
            assert actual.item() == pytest.approx(value, rel=2e-5)
            np.testing.assert_allclose(actual_gradient, gradient, rtol=2e-4, atol=1e-6)
        loss.end_iteration(iteration)
        np.testing.assert_allclose(loss.gradients, [naive.positive, naive.negative], rtol=2e-4)
        np.testing.assert_allclose(loss.ratio, naive.ratio, rtol=2e-4)
    assert naive.positive[N - 1] == 0 < naive.positive[N - 2], "one class never occurred, one came late"


def test_weights_at_the_ratios_of_the_paper() -> None:
    loss = EqualizationLossV2(3)
    loss.ratio.copy_(torch.tensor([100.0, 0.8, 0.0]))
    positive, negative = loss.class_weights()
    np.testing.assert_allclose(positive, [1.0, 3.0, 4.9997, 1.0], rtol=1e-5)
    np.testing.assert_allclose(negative, [1.0, 0.5, 6.8e-5, 1.0], rtol=1e-2)


def test_equals_mmdet_where_no_label_weight_is_involved() -> None:
    ours, theirs = EqualizationLossV2(N), MODELS.build({"type": "EQLV2Loss", "num_classes": N})
    for step in range(4):
        call = rois(step, "sup", N, N + 1, present=[0, 1, 2, 4])
        logits = torch.tensor(call.logits, dtype=torch.float32, requires_grad=True)
        expected = theirs(logits, torch.tensor(call.labels))
        (gradient,) = torch.autograd.grad(expected, logits)
        actual, actual_gradient = feed(ours, call)
        ours.end_iteration(step)
        assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
        np.testing.assert_allclose(actual_gradient, gradient, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(ours.gradients, torch.stack([theirs.pos_grad, theirs.neg_grad]), rtol=1e-5)
        np.testing.assert_allclose(ours.ratio, theirs.pos_neg, rtol=1e-5)


def test_only_training_passes_move_the_state() -> None:
    loss = EqualizationLossV2(N)
    loss.end_iteration(0)  # nothing noted: still at the start
    assert loss.ratio.tolist() == [100.0] * N
    feed(loss, rois(0, "sup", N, N + 1), serve=False)
    loss.end_iteration(1)
    assert loss.gradients.sum() == 0
    feed(loss, rois(0, "sup", N, N + 1))
    loss.end_iteration(2)
    assert (loss.gradients[1] > 0).all()


def test_reductions_and_defaults() -> None:
    loss, call = EqualizationLossV2(N), rois(3, "unsup", N, N + 1)
    values, _ = feed(loss, call, avg_factor=None, reduction_override="none")
    assert values.shape == call.labels.shape
    total, _ = feed(loss, call, avg_factor=None, reduction_override="sum")
    mean, _ = feed(loss, call, avg_factor=torch.tensor(7.0))
    assert total.item() == pytest.approx(values.sum().item(), rel=1e-5)
    assert mean.item() == pytest.approx(values.sum().item() / 7, rel=1e-5)


def test_half_precision_logits_are_computed_in_single_precision() -> None:
    loss, call = EqualizationLossV2(N), rois(3, "sup", N, N + 1)
    call.logits = call.logits.astype(np.float16).astype(np.float64)
    expected, _ = feed(loss, call)
    half = loss(torch.tensor(call.logits, dtype=torch.float16), torch.tensor(call.labels), avg_factor=call.avg_factor)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_head_starts_at_the_prior() -> None:
    head, stock = (
        teacher_student_of(configure(CONTEXT, Options())).student.roi_head.bbox_head,
        teacher_student().student.roi_head.bbox_head,
    )
    assert head.fc_cls.bias.tolist() == pytest.approx([PRIOR_BIAS] * 13)
    for name, parameter in head.named_parameters():
        # The models of these tests spread the class logits out by a factor of 12.
        reference = stock.get_parameter(name)
        assert parameter.std().item() == pytest.approx(reference.std().item(), rel=0.1, abs=1e-9), name
    start = EqualizationLossV2(12)(torch.full((1, 13), PRIOR_BIAS), torch.tensor([12]))
    assert start.item() == pytest.approx(6.9068 + 13 * 1e-3, abs=2e-3), "first losses are about 7"


def test_scores_are_sigmoids_and_reach_detections_and_background_weights() -> None:
    """The activation that mmdet's own EQLV2Loss never gets."""
    model = teacher_student_of(configure(CONTEXT, Options()))
    logits = torch.randn(5, 13, generator=torch.Generator().manual_seed(0))
    scores = class_scores(model.teacher.roi_head.bbox_head, logits)
    for row, values in zip(scores, logits, strict=True):
        background = sigmoid(values[12])
        assert row[12].item() == pytest.approx(background, rel=1e-5)
        for k in range(12):
            assert row[k].item() == pytest.approx(sigmoid(values[k]) * (1 - background), rel=1e-5)

    torch.nn.init.zeros_(model.teacher.roi_head.bbox_head.fc_cls.bias)
    torch.nn.init.zeros_(model.teacher.roi_head.bbox_head.fc_cls.weight)
    inputs, samples = batch(0)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    found = torch.cat([item.scores for item in view.detections])
    assert len(found)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))  # a softmax would give 1 / 13
