"""What a detector is to a run: the model, the image sizes and the optimisation that go together; and the paper's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Detector:
    """A detector and its recipe: a preset, or a user's own.

    Attributes:
        name: name on the command line.
        title: one line for lists.
        model: configuration of mmdet's detector for a number of classes and of detections per image.
        test_scale: longest and shortest side of a test image in pixels, aspect ratio kept.
        train_shortest: smallest and largest shortest side of a training image; the longest side is `test_scale[0]`.
        flips: directions of random flips, all equally likely, as no flip is.
        geometric: whether strong augmentation rotates, shears and translates.
        padding: sides of padded images are multiples of this. Training at many scales pads more: cuDNN makes a plan for
            each convolution and shape of its input, 0.4 s for a step of R50-FPN, and of multiples of 32 there are about
            1,270 shapes, more than its cache holds plans for; of multiples of 128 there are a few dozen.
        per_gpu: labelled and unlabelled images in a batch on one GPU.
        test_batch: largest number of images in a batch at test time. All have one size, since padding would change the
            result.
        reference_gpus: number of GPUs for which `optimizer`'s learning rate is meant.
        optimizer: mmengine's optimizer configuration.
        clip: largest gradient norm, None for no clipping.
        warmup: iterations of linear learning rate warm-up, as a part of the paper's 180k (or of the run, if longer).
        ema_momentum: part of the student in each update of the teacher.
        burn_in: part of the run that trains on labelled images alone.
        theta: threshold of pseudo labels for the RoI classifier that methods start from (paper: 0.9).
        semi: Soft Teacher's training options.
        step_seconds: seconds of one iteration by device, for the estimate in the plan: "cuda" from the 288 V100-hours
            of a paper-length run on 8 GPUs, "cpu" as measured on two cores.
        backbone_file: what a file given by --backbone has to hold, for messages.
        weights: file in the package that the backbone starts from unless --backbone names another; None for none.
        file: the user's file that describes it, None for a preset.
    """

    name: str
    title: str
    model: Callable[[int, int], Config]
    test_scale: tuple[int, int]
    train_shortest: tuple[int, int]
    flips: tuple[str, ...]
    geometric: bool
    padding: int
    per_gpu: tuple[int, int]
    test_batch: int
    reference_gpus: int
    optimizer: Mapping[str, Any]
    clip: float | None
    warmup: int
    ema_momentum: float
    burn_in: float
    theta: float
    semi: Mapping[str, Any]
    step_seconds: Mapping[str, float]
    backbone_file: str
    weights: Path | None = None
    file: "DetectorFile | None" = None

    def burn_in_batches(self, batches: int) -> int:
        """First batches, of the given number of all, that have labelled images alone."""
        return round(self.burn_in * batches)


@dataclass(frozen=True)
class DetectorFile:
    """A file that describes a detector.

    Attributes:
        path: where it lay.
        source: its content.
        digest: SHA-256 of what it says: of the resolved model and recipe, without comments and layout.
        weights: which weights its backbone cannot do without, None where it can be trained from scratch.
    """

    path: Path
    source: bytes
    digest: str
    weights: str | None


SOFT_TEACHER: Config = {
    "freeze_teacher": True,
    "sup_weight": 1.0,
    "unsup_weight": 4.0,
    "pseudo_label_initial_score_thr": 0.5,
    "rpn_pseudo_thr": 0.9,
    "reg_pseudo_thr": 0.02,
    "jitter_times": 10,
    "jitter_scale": 0.06,
    "min_pseudo_bbox_wh": (1e-2, 1e-2),
}
"""Soft Teacher's constants (Xu et al., sec. 4.2, and mmdet's configuration)."""


PAPER: Config = {
    "test_scale": (1333, 800),
    "train_shortest": (400, 1200),
    "flips": ("horizontal",),
    "geometric": True,
    "padding": 128,
    "per_gpu": (1, 4),
    "test_batch": 1,
    "reference_gpus": 8,
    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
    "clip": None,
    "warmup": 500,
    "ema_momentum": 0.001,
    "burn_in": 0.0,
    "theta": 0.9,
    "semi": SOFT_TEACHER,
    "step_seconds": {"cuda": 0.72},
}
"""Recipe of paper sec. 4.2 and of Soft Teacher; without the model and what belongs to it alone."""
