"""mmdet's configuration of Faster R-CNN with FPN, for the backbones of the presets."""

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]


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


RGB: Config = {
    "type": "DetDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
}
"""Preprocessing of torchvision's and timm's weights."""
BGR: Config = {
    "type": "DetDataPreprocessor",
    "mean": [103.530, 116.280, 123.675],
    "std": [1.0, 1.0, 1.0],
    "bgr_to_rgb": False,
}
"""Preprocessing of caffe's weights."""
FROZEN: Config = {"frozen_stages": 1, "norm_cfg": {"type": "BN", "requires_grad": False}, "norm_eval": True}
"""First stage and normalisation stay as ImageNet left them."""


def pretrained(backbone: Config, channels: list[int], preprocessor: Config) -> Callable[[int, int], Config]:
    """The paper's detector with a backbone that starts from ImageNet weights."""

    def model(num_classes: int, max_detections: int) -> Config:
        return faster_rcnn(
            num_classes,
            max_detections,
            backbone={**backbone},
            preprocessor={**preprocessor},
            channels=channels,
        )

    return model


def resnet(depth: int, style: str) -> Config:
    """Backbone ResNet-50 or deeper, with caffe's or torchvision's (`pytorch`) place of the stride."""
    stages = {"num_stages": 4, "out_indices": (0, 1, 2, 3)}
    return {"type": "ResNet", "depth": depth, **stages, **FROZEN, "style": style}


RESNET_CHANNELS = [256, 512, 1024, 2048]

MOBILENET_V2: Config = {"type": "MobileNetV2", "out_indices": (1, 2, 4, 7), **FROZEN}
MOBILENET_V2_CHANNELS = [24, 32, 96, 1280]

SWIN_T: Config = {
    "type": "SwinTransformer",
    "embed_dims": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "drop_path_rate": 0.2,
    "out_indices": (0, 1, 2, 3),
}
"""Swin-T as in mmdet's configurations (Liu et al., ICCV 2021)."""
SWIN_T_CHANNELS = [96, 192, 384, 768]


def small_resnet(num_classes: int, max_detections: int) -> Config:
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
