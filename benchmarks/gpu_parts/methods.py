"""A step of every method against Soft Teacher's: `benchmarks/methods.py`, in bf16 on a GPU."""

import statistics
import sys
import warnings
from typing import Any

import methods
from mmengine.registry import init_default_scope


def run(report: Any, device: str) -> None:
    """Milliseconds, ratios to Soft Teacher's step in the same rounds, and peaks, of all methods."""
    warnings.simplefilter("ignore")
    init_default_scope("mmdet")
    sys.argv = ["methods.py", "--device", device, *(["--rounds", "8", "--precision", "bf16"] if device == "cuda" else
                                                    ["--rounds", "2", "soft-teacher", "gbs"])]  # fmt: skip
    found = methods.measure(methods.arguments())
    reference, least = found[methods.REFERENCE]
    for name, (times, peak) in found.items():
        ratios = [one / other for one, other in zip(times, reference, strict=True)]
        report.add(name, {
            "ms": 1000 * statistics.median(times), "times_soft_teacher": statistics.median(ratios),
            "peak_mib": peak / 2**20, "times_peak": peak / least,
        })  # fmt: skip
