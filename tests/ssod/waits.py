"""Waits of one step of stock `SoftTeacher` and of every method with an unlabelled part by place, as JSON."""

import json
import logging
from typing import Any

from torch import nn

from cissod_bench.ssod import fake_device
from tests.methods.plain import SEMI_SUPERVISED, config_of, teacher_student_of
from tests.methods.test_every_method import EVERYTHING, low_threshold
from tests.ssod.models import LOW, batch, build, detector_config, teacher_student


def counts(model: nn.Module) -> dict[str, Any]:
    """Launches, copies, and waits by place of the losses of one step and their gradients."""
    inputs, samples = batch(0)
    with fake_device.counting() as counted:
        fake_device.move(model)
        there = {name: images.to(fake_device.NAME) for name, images in inputs.items()}
        moved = {name: [sample.to(fake_device.NAME) for sample in each] for name, each in samples.items()}
        for counter in (counted.launches, counted.copies, counted.waits):
            counter.clear()
        loss, _ = model.parse_losses(model.loss(there, moved))
        loss.backward()
        return {"launches": counted.launches.total(), "copies": counted.copies.total(), "waits": dict(counted.waits)}


def main() -> None:
    logging.disable(logging.INFO)
    stock = build({"type": "SoftTeacher"}, detector_config(), {**LOW, "cls_pseudo_thr": 0.13})
    stock.load_state_dict(teacher_student().state_dict())
    found = {"stock": counts(stock.train()), "framework": counts(teacher_student())}
    for name, method in SEMI_SUPERVISED.items():
        model = teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING)
        found[name] = counts(model)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
