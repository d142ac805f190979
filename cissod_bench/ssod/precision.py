"""In which precision a training computes: one choice, recorded with the run.

* `fp32`: single precision throughout.
* `tf32`, the default: a GPU that can (Ampere and later) rounds the factors of products and convolutions to 10 bits of
  mantissa; elsewhere it is single precision. On an H100 a step takes less than half of the time of `fp32`, and as long
  as one in half precision, since the host sets the pace (docs/speed.md).
* `bf16`, `fp16`: convolutions and linear layers run in half precision under autocast. The rest stays in single
  precision: weights and optimiser, the outputs of the heads and with them all losses, box geometry, RoI pooling
  (`teacher_student.py`), the state of methods, the teacher's moving average, and evaluation. bf16 has the range of
  single precision and needs nothing else; fp16 gets a dynamic loss scale, whose state is in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from cissod_bench.errors import UserError, unknown_name

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
HALF: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types of the precisions that need autocast."""


def check_precision(name: str, device: str) -> Precision:
    """The precision of that name.

    Raises:
        UserError: no such precision, or a GPU that lacks it.
    """
    if name not in get_args(Precision):
        raise unknown_name("precision", name, get_args(Precision))
    if name == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"--precision bf16: {torch.cuda.get_device_name()} has no bf16. Use fp16 or tf32.")
    return name  # type: ignore[return-value]


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let a GPU round the factors of single-precision products and convolutions to TF32, or not.

    PyTorch's defaults are TF32 for convolutions and single precision for products. The switches are those of before
    PyTorch 2.9: the new ones must not be mixed with them, and libraries set the old ones.
    """
    switches: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


class MixedPrecisionOptimWrapper(OptimWrapper):
    """mmengine's wrapper with mixed precision on any device, and without waiting for the device in a step.

    Args:
        precision: see the module; TF32 is switched on by `products_in`, around the whole run.
        device: "cuda" or "cpu".
        options: of mmengine's `OptimWrapper`.

    Attributes:
        grad_norm: norm of the gradients of the last step before clipping, None where they are not clipped.
    """

    def __init__(self, precision: Precision = "fp32", device: str = "cpu", **options: Any) -> None:
        super().__init__(**options)
        self._dtype = HALF.get(precision)
        self._device = device
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self.grad_norm: Tensor | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass."""
        with super().optim_context(model), torch.autocast(self._device, self._dtype, self._dtype is not None):
            yield

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Gradients of the scaled loss."""
        super().backward(self._scaler.scale(loss), **options)

    def step(self, **options: Any) -> None:
        """Clip, and take a step unless a gradient under the loss scale has overflowed."""
        if self.clip_grad_kwargs:
            self._scaler.unscale_(self.optimizer)
            parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
            self.grad_norm = self.clip_func(parameters, **self.clip_grad_kwargs).detach()
        self._scaler.step(self.optimizer, **options)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State of the optimiser, and of the loss scale in fp16."""
        return {**super().state_dict(), "loss_scale": self._scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state."""
        state = dict(state_dict)
        scale = state.pop("loss_scale", None)
        if scale:
            self._scaler.load_state_dict(scale)
        super().load_state_dict(state)
