"""In which order weights, and with them feature maps, lie in memory."""

from typing import Any

import torch
from torch import nn


def lay_out(model: nn.Module, precision: str) -> Any:
    """Lay out a model's weights as its device likes them; values and names stay.

    Channels last is what tensor cores and CPUs are fastest with, and feature maps take the weights' format. On a GPU,
    single precision without TF32 has kernels for channels first alone, and group normalisation would convert its maps
    back and forth. Random weights are drawn before: random numbers fill a tensor in the order of its memory.

    Args:
        model: on its device.
        precision: of the training (`ssod/precision.py`).
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    grouped = any(isinstance(part, nn.GroupNorm) for part in model.modules())
    first = on_gpu and (precision == "fp32" or grouped)
    return model.to(memory_format=torch.contiguous_format if first else torch.channels_last)
