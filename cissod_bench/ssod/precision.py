"""Mixed precision: the optimiser's side of it, on a GPU and on a CPU.

Convolutions and linear layers run in half precision under autocast. The rest stays in single precision: weights and
optimiser, the outputs of the heads and with them all losses, box geometry, RoI pooling (`teacher_student.py`),
the state of methods, the teacher's moving average, and evaluation. bf16 has the range of single precision and needs
nothing else; fp16 gets a dynamic loss scale, whose state is in the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from cissod_bench.errors import UserError, unknown_name

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Amp = Literal["bf16", "fp16"] | None
AMP: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_amp(name: str | None, device: str) -> Amp:
    """Mixed precision of that name, None for single precision.

    Raises:
        UserError: no such precision, or a GPU that has none.
    """
    if name is None:
        return None
    if name not in AMP:
        raise unknown_name("precision", name, tuple(AMP))
    if name == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"--amp bf16: {torch.cuda.get_device_name()} has no bf16. Use --amp fp16.")
    return "bf16" if name == "bf16" else "fp16"


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


class FrameOptimWrapper(OptimWrapper):
    """mmengine's wrapper with mixed precision on any device, and without waiting for the device in a step.

    Args:
        amp: "bf16", "fp16", or None for single precision.
        device: "cuda" or "cpu".
        options: of mmengine's `OptimWrapper`.

    Attributes:
        grad_norm: norm of the gradients of the last step before clipping, None where they are not clipped.
    """

    def __init__(self, amp: Amp = None, device: str = "cpu", **options: Any) -> None:
        super().__init__(**options)
        self._dtype = None if amp is None else AMP[amp]
        self._device = device
        self._scaler = torch.amp.GradScaler(device, enabled=amp == "fp16")
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
