"""Every method of the registry under autocast: losses, thresholds and refinements stay in single precision."""

import math
from typing import Any

import pytest
import torch

from cissod_bench.methods.base import Method
from tests.methods.plain import SEMI_SUPERVISED, config_of, teacher_student_of
from tests.methods.test_every_method import EVERYTHING, low_threshold
from tests.ssod.models import batch


def losses_of(method: Method, dtype: torch.dtype | None) -> tuple[dict[str, float], torch.nn.Module]:
    """Losses of one iteration of a new model with their gradients taken, and the model."""
    model = teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING)
    fc_cls = model.student.roi_head.bbox_head.fc_cls
    if fc_cls.bias is not None:
        for detector in (model.student, model.teacher):
            torch.nn.init.zeros_(detector.roi_head.bbox_head.fc_cls.bias)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        loss, logs = model.parse_losses(model.loss(*batch(0)))
    loss.backward()
    return {name: float(value.detach()) for name, value in logs.items()}, model


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_losses_under_autocast_are_close_and_all_state_stays_single(method: Method) -> None:
    expected, plain = losses_of(method, None)
    actual, mixed = losses_of(method, torch.bfloat16)
    assert actual.keys() == expected.keys()
    assert all(math.isfinite(value) for value in actual.values()), actual
    # Labelled passes see the same boxes; bf16 keeps three digits of features, so losses agree to a few per cent.
    for name in ("sup_loss_rpn_cls", "sup_loss_rpn_bbox"):
        assert actual[name] == pytest.approx(expected[name], rel=0.05), name
    assert actual["sup_loss_cls"] == pytest.approx(expected["sup_loss_cls"], rel=0.15)
    for name, buffer in mixed.named_buffers():
        assert buffer.dtype == plain.get_buffer(name).dtype, name
        assert not buffer.is_floating_point() or torch.isfinite(buffer).all(), name
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    gradients = [parameter.grad for parameter in mixed.student.parameters() if parameter.grad is not None]
    assert all(gradient.dtype == torch.float32 and torch.isfinite(gradient).all() for gradient in gradients)
    assert mixed.view is not None
    assert all(found.bboxes.dtype == found.scores.dtype == torch.float32 for found in mixed.view.pseudo)


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_state_is_updated_in_single_precision(method: Method) -> None:
    _, model = losses_of(method, None)
    autocast: list[bool] = []

    def spy(part: Any, name: str) -> None:
        original = getattr(part, name)

        def called(*arguments: Any) -> None:
            autocast.append(torch.is_autocast_enabled("cpu"))
            original(*arguments)

        setattr(part, name, called)

    spy(model.threshold, "update")
    if hasattr(model.loss_cls, "end_iteration"):
        spy(model.loss_cls, "end_iteration")
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(*batch(1))
    assert autocast == [False] * (1 + hasattr(model.loss_cls, "end_iteration"))


def test_weights_of_tiny_gradients_survive_fp16() -> None:
    """A rare class's gradients, 1e-7 of a sample, are below what half precision can tell apart."""
    weights = []
    for dtype in (None, torch.float16):
        model: Any = teacher_student_of(config_of(SEMI_SUPERVISED["gbs"]))
        model.loss_by_gt_instances = lambda inputs, samples: {}
        loss, size = model.loss_cls, len(model.loss_cls.weights)
        scale = torch.logspace(-7, -2, size)
        loss.matrix.copy_(scale * (1 / (size - 1) - torch.eye(size) * size / (size - 1)))
        loss.mass.fill_(1)
        loss.seen.fill_(1)
        loss.eta, loss.warmup = 1.0, 0  # the matrix stays
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            for _ in range(300):
                model.loss({"sup": torch.zeros(1, 3, 8, 8)}, {"sup": []})
        weights.append(loss.weights.clone())
    assert weights[0].max() > 2 * weights[0].min()
    assert torch.equal(*weights)


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_a_loss_is_the_same_number_under_autocast(method: Method) -> None:
    """The framework hands float32 logits to the loss; autocast around it must change nothing."""
    _, model = losses_of(method, None)
    head = model.student.roi_head.bbox_head
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, head.fc_cls.out_features, generator=generator).clamp(-25, 25)
    labels = torch.randint(head.num_classes + 1, (40,), generator=generator)
    weights = torch.rand(40, generator=generator)
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = head.loss_cls(logits, labels, weights, avg_factor=weights.sum())
        values.append(loss)
    assert values[1].dtype == torch.float32
    assert torch.equal(values[0], values[1])
