"""Steps on a stream of image shapes, as multi-scale training has them: stock, padded to 32 pixels, and the framework.

cuDNN plans are made for each shape of an input: the fewer shapes, the sooner no step makes any.
"""

import logging
import time
from typing import Any

import numpy as np
from mmengine.registry import init_default_scope
from steps import Variant, batch, first_weights

from gpu_parts.clock import wait

SIZES = ((640, 480), (640, 427), (480, 640), (500, 375), (427, 640), (640, 640), (612, 612), (375, 500))
"""Sizes of COCO's images, width and height, the most frequent first."""


def shapes(count: int, low: int, high: int, longest: int) -> list[tuple[int, int]]:
    """(width, height) of images after random resizing: the shortest side from `low` to `high`, as in Soft Teacher."""
    numbers = np.random.default_rng(0)
    found = []
    for _ in range(count):
        width, height = SIZES[int(numbers.geometric(0.35) - 1) % len(SIZES)]
        factor = min(int(numbers.integers(low, high + 1)) / min(width, height), longest / max(width, height))
        found.append((round(width * factor), round(height * factor)))
    return found


def run(report: Any, device: str) -> None:
    """Milliseconds of a step the first and the second time that a shape comes up."""
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    on_gpu = device == "cuda"
    detector = "r50-fpn" if on_gpu else "r18-small"
    given = shapes(12, 400, 1200, 1333) if on_gpu else shapes(2, 60, 100, 160)
    batches = [batch(seed, *size) for seed, size in enumerate(given)]
    weights, thresholds = first_weights(detector, batches[0], device)
    variants: list[tuple[str, str, int, dict[str, Any]]] = [
        ("stock fp32", "SoftTeacher", 32, {"precision": "fp32"}),
        ("framework tf32", "TeacherStudent", 128, {"precision": "tf32"}),
        ("framework bf16", "TeacherStudent", 128, {"precision": "bf16"}),
        ("framework fp32", "TeacherStudent", 128, {"precision": "fp32"}),
    ]
    for title, kind, padding, changes in variants if on_gpu else variants[:1]:
        if report.seconds_left() < 10:
            return
        variant = Variant(title, kind, detector, weights, thresholds, device, padding=padding, **changes)
        rounds = []
        for _ in range(2):
            times = []
            for data in batches:
                wait(device)
                started = time.perf_counter()
                variant.step(data)
                wait(device)
                times.append(1000 * (time.perf_counter() - started))
            rounds.append(times)
        padded = {tuple(-(-side // padding) * padding for side in size) for size in given}
        report.add(f"{title}, padded to {padding}", {
            "shapes": len(padded), "ms_first": float(np.mean(rounds[0])), "ms_again": float(np.mean(rounds[1])),
            "median_first": float(np.median(rounds[0])), "median_again": float(np.median(rounds[1])),
        })  # fmt: skip
