"""Every semi-supervised method of the registry trains in the framework; a new method is tested with no new test."""

import dataclasses
import math

import pytest
import torch

from cissod_bench.methods.base import Method
from tests.methods.plain import SEMI_SUPERVISED, config_of, teacher_student_of
from tests.ssod.models import train_steps

# Pseudo labels from an untrained detector, whatever its scores look like.
EVERYTHING = {"pseudo_label_initial_score_thr": 0.06, "rpn_pseudo_thr": 0.07, "reg_pseudo_thr": 0.5}


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_two_real_steps_and_all_state_is_saved(method: Method) -> None:
    model = teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING)
    fc_cls = model.student.roi_head.bbox_head.fc_cls
    if fc_cls.bias is not None:  # a prior against foreground leaves an untrained teacher without a detection
        for detector in (model.student, model.teacher):
            torch.nn.init.zeros_(detector.roi_head.bbox_head.fc_cls.bias)
    history = train_steps(model, 2)
    for logs in history:
        assert all(math.isfinite(value) for value in logs.values()), logs
        assert logs["sup_loss_cls"] > 0
        assert logs["unsup_loss_cls"] > 0
    assert len(torch.cat([found.scores for found in model.view.pseudo])), "no pseudo label: nothing was tested"

    other = teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING)
    other.load_state_dict(model.state_dict())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(other.get_buffer(name), buffer, equal_nan=True, msg=f"{name} is not in state_dict")
    again, resumed = train_steps(model, 1), train_steps(other, 1)
    assert again == resumed, "something that decides the losses is not in state_dict"


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_a_step_with_a_convolutional_box_head(method: Method) -> None:
    config = config_of(method, **low_threshold(method))
    layers = {"num_shared_convs": 1, "num_shared_fcs": 1, "conv_out_channels": 16}
    kind = {"type": "ConvFCBBoxHead", **config.bbox_head}
    model = teacher_student_of(dataclasses.replace(config, bbox_head=kind | layers), semi=EVERYTHING)
    assert all(math.isfinite(value) for value in train_steps(model, 1)[0].values())


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_the_state_of_the_teachers_copy_of_the_loss_is_never_read(method: Method) -> None:
    """Losses are registered on the head, so the teacher has a copy whose state stays at its start."""
    one, other = (teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING) for _ in range(2))
    for buffer in other.teacher.roi_head.bbox_head.loss_cls.buffers():
        if buffer.is_floating_point():
            buffer.fill_(float("nan"))
    assert train_steps(one, 1) == train_steps(other, 1)


def low_threshold(method: Method) -> dict[str, float]:
    """Options with which an untrained teacher has pseudo labels above the threshold."""
    return {"theta": 0.5 if method.name == "gbs" else 0.08}


@pytest.mark.parametrize("method", SEMI_SUPERVISED.values(), ids=SEMI_SUPERVISED.keys())
def test_only_soft_teacher_and_the_focal_loss_sample_labelled_images_uniformly(method: Method) -> None:
    uniform = method.name in ("soft-teacher", "focal")
    assert config_of(method).labeled_repeat == (None if uniform else 0.1)
