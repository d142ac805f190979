"""Small `TeacherStudent`s, stock detectors and batches for the tests of methods."""

from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.ssod.component import component
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.ssod.thresholds import FixedThreshold
from cissod_bench.training.recipes.detectors import SOFT_TEACHER, get_detector

init_default_scope("mmdet")

NUM_CLASSES = 12
# Thresholds at which an untrained detector has pseudo labels, some of them in each filter.
LOW = {"pseudo_label_initial_score_thr": 0.12, "rpn_pseudo_thr": 0.13, "reg_pseudo_thr": 0.5}
Batch = tuple[dict[str, Tensor], dict[str, list[DetDataSample]]]


def detector_config(**changes: Any) -> dict[str, Any]:
    return {**get_detector("r18-small").model(NUM_CLASSES, 100), **changes}


def build(kind: dict[str, Any], detector: dict[str, Any], semi: dict[str, Any], **parts: Any) -> nn.Module:
    preprocessor = {"type": "MultiBranchDataPreprocessor", "data_preprocessor": detector["data_preprocessor"]}
    model: nn.Module = MODELS.build(
        ConfigDict(
            kind,
            detector=detector,
            data_preprocessor=preprocessor,
            semi_train_cfg={**SOFT_TEACHER, **semi},
            semi_test_cfg={"predict_on": "teacher"},
            **parts,
        )
    )
    return model


def teacher_student(
    detector: dict[str, Any] | None = None, semi: dict[str, Any] | None = None, **parts: Any
) -> nn.Module:
    """A `TeacherStudent` whose untrained teacher finds something: its class logits are spread out."""
    torch.manual_seed(0)
    parts = {"threshold": component(FixedThreshold, value=0.13), **parts}
    model = build(component(TeacherStudent), detector or detector_config(), {**LOW, **(semi or {})}, **parts)
    model.init_weights()
    with torch.no_grad():
        model.student.roi_head.bbox_head.fc_cls.weight.mul_(12)
    model.teacher.load_state_dict(model.student.state_dict())
    return model.train()


def batch(seed: int, images: int = 2) -> Batch:
    """Random images of 128 px with three boxes each, seen under random scales."""
    generator = np.random.default_rng(seed)

    def branch() -> tuple[Tensor, list[DetDataSample]]:
        samples = []
        for _ in range(images):
            scale = [generator.uniform(0.8, 1.2), generator.uniform(0.8, 1.2), 1.0]
            sample = DetDataSample(
                metainfo={
                    "img_shape": (128, 128),
                    "ori_shape": (120, 124),
                    "pad_shape": (128, 128),
                    "batch_input_shape": (128, 128),
                    "scale_factor": (1.0, 1.0),
                    "homography_matrix": np.diag(scale).astype(np.float32),
                }
            )
            corners = generator.uniform(0, 80, (3, 2))
            boxes = np.concatenate([corners, corners + generator.uniform(15, 45, (3, 2))], axis=1)
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor(boxes, dtype=torch.float32),
                labels=torch.tensor(generator.integers(0, NUM_CLASSES, 3)),
            )
            samples.append(sample)
        return torch.tensor(generator.normal(size=(images, 3, 128, 128)), dtype=torch.float32), samples

    branches = {name: branch() for name in ("sup", "unsup_teacher", "unsup_student")}
    return {name: found[0] for name, found in branches.items()}, {name: found[1] for name, found in branches.items()}


def train_steps(model: nn.Module, steps: int) -> list[dict[str, float]]:
    """Losses of some real steps of SGD with a moving teacher, seeded alike for every model."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    history = []
    for step in range(steps):
        torch.manual_seed(step)
        model.iteration = step
        loss, logs = model.parse_losses(model.loss(*batch(step)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.student.parameters(), 5.0)
        optimizer.step()
        for teacher, student in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
            teacher.data.lerp_(student.data, 0.1)
        history.append({name: float(value.detach()) for name, value in logs.items()})
    return history
