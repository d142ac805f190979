"""Detection with the teacher, as in validation and in passes over D_u, by the number of images in a batch."""

import logging
from functools import partial
from typing import Any

import torch
from mmengine.registry import init_default_scope
from steps import batch, build, detection_batch, first_weights

from cissod_bench.ssod.model.layout import lay_out
from cissod_bench.ssod.precision import products_in
from gpu_parts.clock import milliseconds


def run(report: Any, device: str) -> None:
    """Milliseconds an image of the paper's detector at `tf32`; of the small one on a CPU."""
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    detector, size = ("r50-fpn", (1333, 800)) if device == "cuda" else ("r18-small", (128, 128))
    example = batch(0, *size)
    weights, thresholds = first_weights(detector, example, device)
    model = build("TeacherStudent", detector, thresholds, padding=128)
    model.load_state_dict(weights)
    lay_out(model.to(device), "tf32")
    with products_in("tf32"), torch.no_grad():
        for images in (1, 2, 4, 8):
            inputs, samples = detection_batch(model, example, images)
            detect = partial(model.teacher.eval().predict, inputs, samples)
            spent = milliseconds(detect, device, repeats=12 if device == "cuda" else 3)
            report.add(f"{images} in a batch, ms an image", spent / images)
