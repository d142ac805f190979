"""MobileNetV2 with a narrow feature pyramid, for photographs of about 320 px and a patient CPU.

What is not set is as in the paper's detector. It was used for `examples/traffic.toml`, and tuned for nothing:
    cissod-bench run --task examples/traffic.toml --detector examples/detectors/mobilenet-v2-416.py \
        --backbone mobilenet_v2_imagenet.pth --method gbs
"""

width = 96
strides = [4, 8, 16, 32]

model = dict(
    backbone=dict(
        type="MobileNetV2",
        out_indices=(1, 2, 4, 7),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
    ),
    neck=dict(in_channels=[24, 32, 96, 1280], out_channels=width, num_outs=4),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=width,
            featmap_strides=strides,
            finest_scale=28,
        ),
        bbox_head=dict(in_channels=width, fc_out_channels=256, reg_class_agnostic=True),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=1000, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300)),
)

recipe = dict(
    test_scale=(320, 320),
    train_shortest=(160, 256),
    flips=("horizontal",),
    geometric=False,
    padding=32,
    per_gpu=(4, 2),
    reference_gpus=1,
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-4),
    clip=5.0,
    warmup=100,
    ema_momentum=0.02,
    burn_in=0.5,
    theta=0.7,
    semi=dict(unsup_weight=1.0, jitter_times=4),
)
