"""What gbs adds to a step: `benchmarks/gbs.py` without the step, which part `speed` measures."""

from typing import Any

import gbs


def run(report: Any, device: str) -> None:
    """Milliseconds of an iteration by number of classes."""
    for num_classes in gbs.CLASSES:
        plain, reweighted, thresholds, crs = gbs.measure(num_classes, device)
        report.add(f"n = {num_classes}", {
            "focal_ms": plain, "gbr_ms": reweighted, "gbt_ms": thresholds, "crs_ms": crs,
            "added_ms": reweighted - plain + thresholds + crs,
        })  # fmt: skip
