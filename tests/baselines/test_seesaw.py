"""Seesaw against a loop in float64 written from its formulas, and against mmdet's own loss."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from cissod_bench.baselines.seesaw import CountingSeesawLoss, Options, configure
from cissod_bench.ssod.model.roi_head import class_scores
from tests.methods.plain import CONTEXT, teacher_student_of
from tests.methods.samples import Rois, feed, steps
from tests.ssod.models import train_steps

N = 5


class Naive:
    def __init__(self, p: float, q: float) -> None:
        self.p, self.q = p, q
        self.counts = [0] * (N + 1)

    def call(self, call: Rois) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros_like(call.logits)
        for label in call.labels:
            self.counts[label] += 1
        for j, target in enumerate(call.labels):
            objectness = np.exp(call.logits[j, N:]) / np.exp(call.logits[j, N:]).sum()
            side = int(target == N)
            value -= call.weights[j] * math.log(objectness[side])
            for k in range(2):
                gradient[j, N + k] = call.weights[j] * (objectness[k] - (k == side)) / call.avg_factor
            if target == N:
                continue
            scores = np.exp(call.logits[j, :N]) / np.exp(call.logits[j, :N]).sum()
            terms = np.empty(N)
            for k in range(N):
                mitigation = compensation = 1.0
                if max(self.counts[k], 1) < max(self.counts[target], 1):
                    mitigation = (max(self.counts[k], 1) / max(self.counts[target], 1)) ** self.p
                if scores[k] > max(scores[target], 0.01):
                    compensation = (scores[k] / max(scores[target], 0.01)) ** self.q
                terms[k] = (1.0 if k == target else mitigation * compensation) * math.exp(call.logits[j, k])
            value -= call.weights[j] * math.log(terms[target] / terms.sum())
            for k in range(N):
                gradient[j, k] = call.weights[j] * (terms[k] / terms.sum() - (k == target)) / call.avg_factor
        return value / call.avg_factor, gradient


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.0, 2.0), (0.8, 0.0)])
def test_values_gradients_and_counts_equal_the_naive_loop_and_mmdet(p: float, q: float) -> None:
    loss, naive = CountingSeesawLoss(N, p, q), Naive(p, q)
    stock = MODELS.build({"type": "SeesawLoss", "num_classes": N, "p": p, "q": q, "return_dict": False})
    for iteration, calls in enumerate(steps(N, N + 2)):
        for call in calls:
            value, gradient = naive.call(call)
            actual, actual_gradient = feed(loss, call)
            theirs, _ = feed(stock, call)
            assert actual.item() == pytest.approx(value, rel=2e-5)
            assert actual.item() == pytest.approx(theirs.item(), rel=2e-5)
            np.testing.assert_allclose(actual_gradient, gradient, rtol=5e-4, atol=1e-6)
        loss.end_iteration(iteration)
        assert loss.cum_samples.tolist() == naive.counts == stock.cum_samples.tolist()
    assert naive.counts[N - 1] == 0 < naive.counts[N - 2], "one class never occurred, one came late"


def test_only_training_passes_count() -> None:
    loss = CountingSeesawLoss(N)
    for call in steps(N, N + 2)[0]:
        feed(loss, call, serve=False)
    loss.end_iteration(0)
    assert loss.cum_samples.sum() == 0


def test_scores_are_classes_times_objectness_with_the_background_last() -> None:
    model = teacher_student_of(configure(CONTEXT, Options()))
    assert model.student.roi_head.bbox_head.fc_cls.out_features == 14
    logits = torch.randn(4, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = class_scores(model.teacher.roi_head.bbox_head, logits)
    assert scores.shape == (4, 13)
    for row, values in zip(scores, logits.tolist(), strict=True):
        foreground = math.exp(values[12]) / (math.exp(values[12]) + math.exp(values[13]))
        total = sum(math.exp(value) for value in values[:12])
        expected = [foreground * math.exp(value) / total for value in values[:12]] + [1 - foreground]
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_the_framework_logs_one_classification_loss_and_counts_its_rois() -> None:
    model = teacher_student_of(configure(CONTEXT, Options()))
    logs = train_steps(model, 1)[0]
    assert {name for name in logs if "loss_cls" in name} == {"sup_loss_cls", "unsup_loss_cls"}
    assert logs["sup_loss_cls"] > 0
    # Two images of 64 RoIs in each pass, never more.
    assert 128 < model.loss_cls.cum_samples.sum() <= 256
    assert model.teacher.roi_head.bbox_head.loss_cls.cum_samples.sum() == 0


def test_the_classifier_is_normalised_at_temperature_20_unless_asked_otherwise() -> None:
    layer = teacher_student_of(configure(CONTEXT, Options())).student.roi_head.bbox_head.fc_cls
    features = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    cosine = (features @ layer.weight.T) / features.norm(dim=1)[:, None] / layer.weight.norm(dim=1)
    torch.testing.assert_close(layer(features), 20 * cosine + layer.bias, rtol=1e-3, atol=1e-3)
    plain = teacher_student_of(configure(CONTEXT, Options(normalized=False))).student.roi_head.bbox_head.fc_cls
    torch.testing.assert_close(plain(features), features @ plain.weight.T + plain.bias)
