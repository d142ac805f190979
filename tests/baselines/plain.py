"""A plain setting, and the small frame with a method's parts in it."""

from pathlib import Path
from typing import Any

from torch import nn

from cissod_bench.methods.base import Method, Parts, Setting
from cissod_bench.training.build_config import merged
from tests.methods.frames import NUM_CLASSES, detector_config, frame

SETTING = Setting(
    num_classes=NUM_CLASSES,
    iterations=100,
    burn_in=0,
    unsup_weight=4.0,
    theta=0.9,
    rfs_threshold=0.1,
    crs_gamma=0.5,
    labeled_images=40,
    labeled_boxes=tuple(range(NUM_CLASSES)),
    minority=tuple(range(NUM_CLASSES // 2, NUM_CLASSES)),
    minority_images=Path("minority.txt"),
)


def frame_of(parts: Parts, **changes: Any) -> nn.Module:
    """The frame as the engine builds it; `changes` go into the frame's configuration."""
    detector = merged(detector_config(), parts.detector)
    detector["roi_head"]["bbox_head"] |= {**parts.bbox_head, "loss_cls": dict(parts.loss_cls)}
    plugged = {"threshold": dict(parts.threshold), "refinement": parts.refinement and dict(parts.refinement)}
    return frame(detector, **{**plugged, **changes})


def parts_of(method: Method, **options: Any) -> Parts:
    """The method's parts in the plain setting."""
    return method.parts(SETTING, method.options(options))
