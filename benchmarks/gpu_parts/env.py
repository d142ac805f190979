"""What the machine is, and its ceilings."""

import os
import platform
from collections.abc import Callable
from typing import Any

import torch

from gpu_parts.clock import milliseconds


def run(report: Any, device: str) -> None:
    """Versions, rates, and what a launch and a wait cost."""
    import cv2
    import numpy
    import torchvision

    on_gpu = device == "cuda"
    report.add("versions", {
        "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
        "numpy": numpy.__version__, "opencv": cv2.__version__, "cudnn": torch.backends.cudnn.version(),
    })  # fmt: skip
    report.add("device", {
        "name": torch.cuda.get_device_name() if on_gpu else platform.processor(), "cores": os.cpu_count(),
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else None,
        "tf32_of_convolutions_by_default": torch.backends.cudnn.allow_tf32,
        "tf32_of_products_by_default": torch.backends.cuda.matmul.allow_tf32,
    })  # fmt: skip
    side = 8192 if on_gpu else 512
    for name, dtype, tf32 in (("bf16", torch.bfloat16, False), ("tf32", torch.float32, True),
                              ("fp32", torch.float32, False)):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        spent = milliseconds(lambda one=one, other=other: one @ other, device, 5)
        report.add(f"product {name} TFLOP/s", 2 * side**3 / spent / 1e9)
        maps = torch.randn(4, 256, 200, 336, device=device, dtype=dtype) if on_gpu else torch.randn(1, 32, 50, 84)
        maps = maps.contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(maps.shape[1], maps.shape[1], 3, 3, device=device, dtype=maps.dtype)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        spent = milliseconds(lambda m=maps, k=kernel: torch.conv2d(m, k, padding=1), device, 5)
        flops = 2 * 9 * maps.numel() * maps.shape[1]
        report.add(f"convolution {name} TFLOP/s", flops / spent / 1e9)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    large = torch.randn(2**28 if on_gpu else 2**22, device=device)
    target = torch.empty_like(large)
    spent = milliseconds(lambda: target.copy_(large), device, 5)
    report.add("copy TB/s", 2 * 4 * large.numel() / spent / 1e9)
    small = torch.zeros(8, device=device)
    actions: dict[str, Callable[[], Any]] = {"launch": lambda: small.add_(1), "item": lambda: small[0].item()}
    for name, action in actions.items():
        report.add(f"{name} us", 1000 * milliseconds(action, device, 5, 1000))
