"""A plain context, the small framework with a method's components in it, and the methods that use all of it."""

from pathlib import Path
from typing import Any

from torch import nn

from cissod_bench.methods.base import Context, Method, MethodConfig
from cissod_bench.methods.registry import METHODS
from cissod_bench.training.build_config import merged
from tests.ssod.models import NUM_CLASSES, detector_config, teacher_student

CONTEXT = Context(
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


def teacher_student_of(config: MethodConfig, **changes: Any) -> nn.Module:
    """`TeacherStudent` as a run builds it; `changes` go into its configuration."""
    detector = merged(detector_config(), config.detector)
    detector["roi_head"]["bbox_head"] |= {**config.bbox_head, "loss_cls": dict(config.loss_cls)}
    assert config.threshold is not None
    plugged = {"threshold": dict(config.threshold), "refinement": config.refinement and dict(config.refinement)}
    return teacher_student(detector, **{**plugged, **changes})


def config_of(method: Method, **options: Any) -> MethodConfig:
    """The method's configuration in the plain context."""
    return method.configure(CONTEXT, method.options(options))


SEMI_SUPERVISED = {name: method for name, method in METHODS.items() if config_of(method).unlabeled}
"""The methods that train on unlabelled images."""
