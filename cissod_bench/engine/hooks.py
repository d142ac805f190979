"""What the training loop does around each iteration of the frame."""

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper


@HOOKS.register_module()
class TeacherStudentHook(Hook):
    """Tells the frame its iteration, and moves the teacher towards the student after each one.

    `teacher <- (1 - momentum) * teacher + momentum * student` over all parameters at once. Buffers are copied when
    training starts and left alone afterwards, as by mmdet's `MeanTeacherHook`, so normalisation has to be frozen or
    without running statistics.

    Args:
        momentum: part of the student in each update (Soft Teacher: 0.001).
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def before_train(self, runner: Any) -> None:
        """Start the teacher as a copy of the student."""
        if runner.iter == 0:
            frame = _frame(runner)
            frame.teacher.load_state_dict(frame.student.state_dict())

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the frame which iteration comes."""
        _frame(runner).iteration = runner.iter

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the teacher."""
        frame = _frame(runner)
        torch._foreach_lerp_(list(frame.teacher.parameters()), list(frame.student.parameters()), self.momentum)


def _frame(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
