"""Detection with the teacher, as in validation and in passes over D_u, by the number of images in a batch."""

import logging
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from steps import build

from cissod_bench.ssod.model.layout import lay_out
from cissod_bench.ssod.precision import products_in
from gpu_parts.clock import milliseconds


def run(report: Any, device: str) -> None:
    """Milliseconds an image of the paper's detector at `tf32`; of the small one on a CPU."""
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    detector, shape = ("r50-fpn", (800, 1344)) if device == "cuda" else ("r18-small", (128, 128))
    model = build("TeacherStudent", detector, {"rpn_pseudo_thr": 0.9})
    model.init_weights()
    lay_out(model.to(device), "tf32")
    about = {"img_shape": shape, "ori_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)}
    with products_in("tf32"), torch.no_grad():
        for images in (1, 2, 4, 8):
            inputs = torch.randn(images, 3, *shape, device=device)

            def detect(inputs: torch.Tensor = inputs) -> None:
                model.teacher.eval().predict(inputs, [DetDataSample(metainfo=about) for _ in inputs])

            spent = milliseconds(detect, device, repeats=12 if device == "cuda" else 3)
            report.add(f"{images} in a batch, ms an image", spent / images)
