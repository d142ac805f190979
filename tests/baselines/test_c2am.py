"""C2AM against a loop in float64 written from its formulas: angles by acos, margins on them, then the softmax."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from cissod_bench.baselines.c2am import AngularMarginLoss, CosineLinear, Options, configure, margins, shift_angle
from cissod_bench.ssod.branch import branch
from cissod_bench.ssod.model.roi_head import class_scores
from tests.methods.plain import CONTEXT, teacher_student_of
from tests.methods.samples import Rois, feed, steps
from tests.ssod.models import batch

N = 5
SCALE, ALPHA = 30.0, 0.5


def naive_values(logits: torch.Tensor, call: Rois, norms: np.ndarray, background: bool) -> torch.Tensor:
    """(R,) losses in float64, one RoI and one competitor at a time; autograd gives the gradient."""
    values = []
    for j, target in enumerate(call.labels):
        terms = []
        for k in range(N + 1):
            angle = torch.acos(logits[j, k] / SCALE)
            margin = max(0.0, ALPHA / math.pi * math.log(norms[target] / norms[k])) if k != target else 0.0
            if not background and N in (k, target):
                margin = 0.0
            terms.append(torch.exp(SCALE * torch.cos(torch.clamp(angle + margin, max=math.pi))))
        values.append(-torch.log(terms[target] / sum(terms)))
    return torch.stack(values)


@pytest.mark.parametrize("background", [True, False])
def test_values_and_gradients_equal_the_naive_loop(background: bool) -> None:
    generator = np.random.default_rng(0)
    loss = AngularMarginLoss(SCALE, ALPHA, background)
    for calls in steps(N, N + 1):
        for call in calls:
            norms = np.append(generator.uniform(0.05, 3, N), 8.0)
            call.logits = SCALE * generator.uniform(-0.95, 0.95, call.logits.shape).astype(np.float32).astype(float)
            logits = torch.tensor(call.logits, requires_grad=True)
            expected = (naive_values(logits, call, norms, background) * torch.tensor(call.weights)).sum()
            (expected / call.avg_factor).backward()
            loss.norms = torch.tensor(norms, dtype=torch.float32)
            actual, gradient = feed(loss, call)
            assert actual.item() == pytest.approx(expected.item() / call.avg_factor, rel=1e-5)
            np.testing.assert_allclose(gradient, logits.grad, rtol=1e-3, atol=1e-6)


def test_margins_of_the_norms_3_1_half() -> None:
    actual = margins(torch.tensor([3.0, 1.0, 0.5]), torch.arange(3), ALPHA)
    np.testing.assert_allclose(actual, [[0, 0.1748, 0.2852], [0, 0, 0.1103], [0, 0, 0]], atol=5e-5)
    without = margins(torch.tensor([3.0, 1.0, 0.5]), torch.arange(3), ALPHA, background_margin=False)
    np.testing.assert_allclose(without, [[0, 0.1748, 0], [0, 0, 0], [0, 0, 0]], atol=5e-5)


def test_equal_norms_or_alpha_zero_are_a_plain_softmax() -> None:
    call = steps(N, N + 1)[0][1]
    logits, labels = torch.tensor(call.logits, dtype=torch.float32), torch.tensor(call.labels)
    expected = functional.cross_entropy(logits, labels)
    for norms, alpha in ((torch.full((N + 1,), 0.32), ALPHA), (torch.arange(1.0, N + 2), 0.0)):
        loss = AngularMarginLoss(SCALE, alpha)
        loss.norms = norms
        torch.testing.assert_close(loss(logits, labels), expected, rtol=1e-5, atol=1e-5)


def test_angles_stop_at_pi_and_gradients_stay_finite() -> None:
    angles = torch.tensor([0.0, 1e-4, 1.0, 2.5, 3.0, math.pi])
    cosine = angles.cos().requires_grad_()
    for margin in (0.0, 0.3, 2.0, math.pi):
        shifted = shift_angle(cosine, torch.tensor(margin))
        expected = torch.cos(torch.clamp(angles + margin, max=math.pi))
        torch.testing.assert_close(shifted, expected, rtol=0, atol=5e-4)
        (gradient,) = torch.autograd.grad(shifted.sum(), cosine)
        assert gradient.isfinite().all()
        assert (shifted >= -1.0 - 1e-6).all()
    extreme = margins(torch.tensor([1e30, 1e-30]), torch.tensor([0]), 5.0)
    assert extreme.max().item() == pytest.approx(math.pi), "a norm that vanishes gives no more than pi"
    assert margins(torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), ALPHA).isfinite().all()


def test_the_classifier_is_a_cosine_without_bias_in_single_precision() -> None:
    layer = CosineLinear(8, 3, SCALE)
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    expected = [
        [SCALE * float(f @ w) / math.sqrt(float(f @ f) * float(w @ w)) for w in layer.weight.detach()] for f in features
    ]
    torch.testing.assert_close(layer(features), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert layer.bias is None
    assert layer(torch.zeros(1, 8)).tolist() == [[0.0, 0.0, 0.0]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(features).dtype == torch.float32
        torch.testing.assert_close(layer(features), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_head_gives_the_loss_the_current_detached_norms() -> None:
    model = teacher_student_of(configure(CONTEXT, Options()))
    head = model.student.roi_head.bbox_head
    with torch.no_grad():
        head.fc_cls.weight[3] *= 5
    model.loss(*batch(0))
    norms = head.loss_cls.norms
    expected = [math.sqrt(sum(float(v) ** 2 for v in row)) for row in head.fc_cls.weight.detach()]
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    assert not norms.requires_grad
    scores = class_scores(model.teacher.roi_head.bbox_head, torch.randn(3, 13))
    assert scores.sum(dim=1).tolist() == pytest.approx([1.0] * 3), "softmax without margin at test time"


def test_the_loss_of_the_whole_head_against_its_weights() -> None:
    """Features through head and loss, gradient on the classifier's weights against autograd of the naive form."""
    model = teacher_student_of(configure(CONTEXT, Options()))
    head = model.student.roi_head.bbox_head
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        head.fc_cls.weight.mul_(torch.linspace(0.2, 3, 13)[:, None])
    features = torch.randn(6, 48, 7, 7, generator=generator)
    labels = torch.tensor([0, 5, 12, 12, 11, 3])
    with branch(head.loss_cls, "sup"):
        value = head.loss_cls(head(features)[0], labels, torch.ones(6), avg_factor=6.0, reduction_override=None)
    (gradient,) = torch.autograd.grad(value, head.fc_cls.weight)

    hidden = head.shared_fcs[1](head.shared_fcs[0](features.flatten(1)).relu()).relu().detach().double()
    weight = head.fc_cls.weight.detach().double().requires_grad_()
    norms = weight.detach().norm(dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for j, i in enumerate(labels.tolist()):
        angle = torch.stack([torch.acos(w @ hidden[j] / (w.norm() * hidden[j].norm())) for w in weight])
        moved = torch.stack(
            [angle[k] + max(0.0, ALPHA / math.pi * math.log(norms[i] / norms[k])) for k in range(len(weight))]
        )
        total = total - torch.log_softmax(SCALE * torch.cos(moved), dim=0)[i] / 6
    (expected,) = torch.autograd.grad(total, weight)
    assert value.item() == pytest.approx(total.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)
