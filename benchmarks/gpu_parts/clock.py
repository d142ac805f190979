"""Time on a device."""

import statistics
import time
from collections.abc import Callable

import torch


def wait(device: str) -> None:
    """Until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(action: Callable[[], object], device: str, repeats: int = 30, inner: int = 1) -> float:
    """Median time of an action after a warm-up; each measurement is of `inner` of them in a row."""
    times = []
    for _ in range(repeats + max(2, repeats // 6)):
        wait(device)
        started = time.perf_counter()
        for _ in range(inner):
            action()
        wait(device)
        times.append(1000 * (time.perf_counter() - started) / inner)
    return statistics.median(times[-repeats:])
