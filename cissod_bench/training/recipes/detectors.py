"""Detector presets.

`r50-fpn` is the paper's detector with the recipe of paper sec. 4.2 and of Soft Teacher. `r18-small` is for images of
about 128 px, learns from scratch and within minutes on two CPU cores; `r18-medium` is the same for 256 px.
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.training.recipes.detector import PAPER, SOFT_TEACHER, Config, Detector
from cissod_bench.training.recipes.detector_file import detector_from_file
from cissod_bench.training.recipes.faster_rcnn import (
    BGR,
    MOBILENET_V2,
    MOBILENET_V2_CHANNELS,
    RESNET_CHANNELS,
    RGB,
    SWIN_T,
    SWIN_T_CHANNELS,
    pretrained,
    resnet,
    small_resnet,
)

_PAPER: Config = {**PAPER, "test_batch": 4}
"""Four images of one size in a batch of detection take as many launches as one (`benchmarks/counts.py`)."""

# Tuned by measurement on `shapes`.
_SMALL: Config = {
    "model": small_resnet,
    "flips": ("horizontal", "vertical", "diagonal"),
    "geometric": False,
    "padding": 32,
    "per_gpu": (4, 2),
    "test_batch": 20,
    "reference_gpus": 1,
    "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-4},
    "clip": 5.0,
    "warmup": 30,
    "ema_momentum": 0.02,
    "burn_in": 0.5,
    "theta": 0.9,
    "semi": {**SOFT_TEACHER, "unsup_weight": 1.0, "jitter_times": 4},
    "backbone_file": "a ResNet-18 with 16 base channels and group normalisation",
}

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (
        Detector(
            name="r50-fpn",
            title="Faster R-CNN R50-FPN as in the paper and Soft Teacher (caffe-style backbone weights, BGR)",
            model=pretrained(resnet(50, "caffe"), RESNET_CHANNELS, BGR),
            backbone_file="a caffe-style ResNet-50 (detectron2's resnet50_caffe in mmdet's names)",
            **_PAPER,
        ),
        Detector(
            name="r50-fpn-torchvision",
            title="the same for torchvision's ResNet-50 weights (RGB)",
            model=pretrained(resnet(50, "pytorch"), RESNET_CHANNELS, RGB),
            backbone_file="torchvision's ResNet-50",
            **_PAPER,
        ),
        Detector(
            name="r101-fpn",
            title="the same with torchvision's ResNet-101",
            model=pretrained(resnet(101, "pytorch"), RESNET_CHANNELS, RGB),
            backbone_file="torchvision's ResNet-101",
            **{**_PAPER, "step_seconds": {}},
        ),
        Detector(
            name="swin-t-fpn",
            title="the same with Swin-T, trained by AdamW as in mmdet's configurations of Swin",
            model=pretrained(SWIN_T, SWIN_T_CHANNELS, RGB),
            backbone_file="Swin-T as in a checkpoint of mmdet, whose names begin with backbone.",
            **{**_PAPER, "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}, "step_seconds": {}},
        ),
        Detector(
            name="mobilenet-v2-fpn",
            title="the same with MobileNetV2",
            model=pretrained(MOBILENET_V2, MOBILENET_V2_CHANNELS, RGB),
            backbone_file="MobileNetV2 in mmdet's names (for RGB)",
            **{**_PAPER, "step_seconds": {}},
        ),
        Detector(
            name="r18-small",
            title="ResNet-18 of a quarter of the width, group normalisation, from scratch, for images of 128 px",
            **{**_SMALL, "test_scale": (128, 128), "train_shortest": (128, 128), "step_seconds": {"cpu": 0.18}},
        ),
        Detector(
            name="r18-small-pretrained",
            title="the same from a backbone that comes with the package and has seen twelve other shapes",
            **{**_SMALL, "test_scale": (128, 128), "train_shortest": (128, 128), "step_seconds": {"cpu": 0.18}},
            weights=Path(__file__).with_name("shapes_backbone.safetensors"),
        ),
        Detector(
            name="r18-medium",
            title="from scratch, for images of 256 px",
            **{**_SMALL, "test_scale": (256, 256), "train_shortest": (224, 256), "step_seconds": {"cpu": 0.7}},
        ),
    )
}


def get_detector(name: str | os.PathLike[str]) -> Detector:
    """The detector preset of that name, or the detector in the Python file at that path.

    Raises:
        UserError: no such preset, or a file that the framework cannot serve.
    """
    name = os.fspath(name)
    if name.endswith(".py"):
        detector = detector_from_file(Path(name))
        if detector.name in DETECTORS:
            raise UserError(f"{name}: {detector.name} is a preset's name. Give the file another one.")
        return detector
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]


def names() -> list[str]:
    """Names of the detector presets."""
    return list(DETECTORS)


_NO_SETTINGS = ("model", "weights", "file")


def describe(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a detector preset, but for the function that makes its model.

    Raises:
        UserError: no such preset.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.detectors.describe("r50-fpn")["per_gpu"]
        (1, 4)
    """
    preset = get_detector(name)
    return {field.name: getattr(preset, field.name) for field in fields(preset) if field.name not in _NO_SETTINGS}
