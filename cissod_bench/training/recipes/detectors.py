"""Detector presets: the model, the image sizes and the optimisation that go together.

`r50-fpn` is the paper's detector with the recipe of paper sec. 4.2 and of Soft Teacher. `r18-small` is for images of
about 128 px, learns from scratch and within minutes on two CPU cores; `r18-medium` is the same for 256 px.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cissod_bench.errors import unknown_name

Config = dict[str, Any]


@dataclass(frozen=True)
class Detector:
    """A detector preset.

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
        test_batch: images in a batch at test time; more than one only where all images have one size, since padding
            would change the result.
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


def faster_rcnn(
    num_classes: int,
    max_detections: int,
    *,
    backbone: Config,
    preprocessor: Config,
    channels: list[int],
    width: int = 256,
    levels: int = 5,
    roi_levels: int = 4,
    finest_scale: int = 56,
    class_agnostic_boxes: bool = False,
    rpn_positive: float = 0.7,
    rpn_samples: int = 256,
    fc_width: int = 1024,
    anchor_scale: int = 8,
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    rois: int = 512,
    proposals: tuple[int, int, int] = (2000, 1000, 1000),
    roi_samples: int = 0,
) -> Config:
    """Faster R-CNN with FPN as in mmdet's base configuration, with RoIAlign through torchvision.

    Args:
        num_classes: foreground classes.
        max_detections: detections kept per image.
        backbone: mmdet backbone.
        preprocessor: mmdet data preprocessor of one branch.
        channels: channels of the backbone's stages that feed the FPN.
        width: channels of the FPN.
        levels: levels of the FPN.
        roi_levels: levels that RoIs are pooled from; a RoI of `finest_scale` pixels is the last of the first level.
        fc_width: width of the two shared layers of the RoI head.
        class_agnostic_boxes: one box regressor for all classes instead of one each.
        rpn_positive: overlap from which an anchor is positive.
        rpn_samples: anchors sampled per image in training.
        anchor_scale: size of an anchor in strides.
        anchor_ratios: heights over widths of anchors.
        rois: RoIs sampled per image in training.
        proposals: boxes before NMS in training, after NMS in training, and both at test time.
        roi_samples: sampling points per bin side of RoIAlign, 0 for adaptive.
    """
    strides = [4 * 2**level for level in range(levels)]
    box_coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4}
    assigner = {"type": "MaxIoUAssigner", "ignore_iof_thr": -1}
    sampler = {"type": "RandomSampler", "neg_pos_ub": -1}
    nms = {"nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}
    return {
        "type": "FasterRCNN",
        "data_preprocessor": preprocessor,
        "backbone": backbone,
        "neck": {
            "type": "FPN",
            "in_channels": channels,
            "out_channels": width,
            "num_outs": levels,
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": width,
            "feat_channels": width,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [anchor_scale],
                "ratios": list(anchor_ratios),
                "strides": strides,
            },
            "bbox_coder": {**box_coder, "target_stds": [1.0] * 4},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                "roi_layer": {
                    "type": "RoIAlign",
                    "output_size": 7,
                    "sampling_ratio": roi_samples,
                    "use_torchvision": True,
                },
                "out_channels": width,
                "featmap_strides": strides[:roi_levels],
                "finest_scale": finest_scale,
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": width,
                "fc_out_channels": fc_width,
                "roi_feat_size": 7,
                "num_classes": num_classes,
                "bbox_coder": {**box_coder, "target_stds": [0.1, 0.1, 0.2, 0.2]},
                "reg_class_agnostic": class_agnostic_boxes,
                "loss_cls": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
                "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            },
        },
        "train_cfg": {
            "rpn": {
                "assigner": {
                    **assigner,
                    "pos_iou_thr": rpn_positive,
                    "neg_iou_thr": 0.3,
                    "min_pos_iou": 0.3,
                    "match_low_quality": True,
                },
                "sampler": {**sampler, "num": rpn_samples, "pos_fraction": 0.5, "add_gt_as_proposals": False},
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
            "rpn_proposal": {"nms_pre": proposals[0], "max_per_img": proposals[1], **nms},
            "rcnn": {
                "assigner": {
                    **assigner,
                    "pos_iou_thr": 0.5,
                    "neg_iou_thr": 0.5,
                    "min_pos_iou": 0.5,
                    "match_low_quality": False,
                },
                "sampler": {**sampler, "num": rois, "pos_fraction": 0.25, "add_gt_as_proposals": True},
                "pos_weight": -1,
                "debug": False,
            },
        },
        "test_cfg": {
            "rpn": {"nms_pre": proposals[2], "max_per_img": proposals[2], **nms},
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": max_detections,
            },
        },
    }


def _r50(style: str, mean: list[float], std: list[float], to_rgb: bool) -> Callable[[int, int], Config]:
    """ResNet-50 with frozen batch normalisation, for weights of the given style."""

    def model(num_classes: int, max_detections: int) -> Config:
        return faster_rcnn(
            num_classes,
            max_detections,
            preprocessor={
                "type": "DetDataPreprocessor",
                "mean": mean,
                "std": std,
                "bgr_to_rgb": to_rgb,
            },
            backbone={
                "type": "ResNet",
                "depth": 50,
                "num_stages": 4,
                "out_indices": (0, 1, 2, 3),
                "frozen_stages": 1,
                "norm_cfg": {"type": "BN", "requires_grad": False},
                "norm_eval": True,
                "style": style,
            },
            channels=[256, 512, 1024, 2048],
        )

    return model


def _r18(num_classes: int, max_detections: int) -> Config:
    """ResNet-18 of a quarter of the width with group normalisation: what two cores can train from scratch."""
    return faster_rcnn(
        num_classes,
        max_detections,
        preprocessor={
            "type": "DetDataPreprocessor",
            "mean": [115.0] * 3,
            "std": [60.0] * 3,
            "bgr_to_rgb": False,
        },
        backbone={
            "type": "ResNet",
            "depth": 18,
            "base_channels": 16,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "frozen_stages": -1,
            "norm_cfg": {"type": "GN", "num_groups": 8, "requires_grad": True},
            "norm_eval": False,
            "style": "pytorch",
        },
        channels=[16, 32, 64, 128],
        width=48,
        levels=4,
        roi_levels=3,
        finest_scale=28,
        class_agnostic_boxes=True,
        rpn_positive=0.6,
        rpn_samples=128,
        fc_width=128,
        anchor_scale=4,
        anchor_ratios=(1.0,),
        rois=64,
        proposals=(400, 100, 100),
        roi_samples=1,
    )


_PAPER: Config = {
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

# Tuned by measurement on `shapes`.
_SMALL: Config = {
    "model": _r18,
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
            model=_r50("caffe", [103.530, 116.280, 123.675], [1.0, 1.0, 1.0], False),
            backbone_file="a caffe-style ResNet-50 (detectron2's resnet50_caffe in mmdet's names)",
            **_PAPER,
        ),
        Detector(
            name="r50-fpn-torchvision",
            title="the same for torchvision's ResNet-50 weights (RGB)",
            model=_r50("pytorch", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True),
            backbone_file="torchvision's ResNet-50",
            **_PAPER,
        ),
        Detector(
            name="r18-small",
            title="ResNet-18 of a quarter of the width, group normalisation, from scratch, for images of 128 px",
            **{**_SMALL, "test_scale": (128, 128), "train_shortest": (128, 128), "step_seconds": {"cpu": 0.18}},
        ),
        Detector(
            name="r18-medium",
            title="the same for images of 256 px",
            **{**_SMALL, "test_scale": (256, 256), "train_shortest": (224, 256), "step_seconds": {"cpu": 0.7}},
        ),
    )
}


def get_detector(name: str) -> Detector:
    """The detector preset of that name.

    Raises:
        UserError: no such preset.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]


def names() -> list[str]:
    """Names of the detector presets."""
    return list(DETECTORS)


def describe(name: str) -> dict[str, Any]:
    """The fields of a detector preset, but for the function that makes its model.

    Raises:
        UserError: no such preset.

    Example:
        >>> import cissod_bench as cb
        >>> cb.detectors.describe("r50-fpn")["per_gpu"]
        (1, 4)
    """
    preset = get_detector(name)
    return {field.name: getattr(preset, field.name) for field in fields(preset) if field.name != "model"}
