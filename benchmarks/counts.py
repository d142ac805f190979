"""Launches, copies and waits of a training step, and what detection launches, counted on a device that is not there.

    python benchmarks/counts.py [--detector r50-fpn] [--size 1344 800] [--json counts.json]

Prints what the host would launch, copy and wait for with a GPU in one step of stock mmdet `SoftTeacher` and of the
framework (`cissod_bench/ssod/fake_device.py`), with the waits by place. It is a process of its own, since PyTorch has
one such device a process and pins no memory for a GPU after it has been made.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from steps import Variant, batch, build, detection_batch, first_weights

from cissod_bench.ssod import fake_device

BATCHES = (1, 4)
"""Images in a batch of detection; the paper's presets take four of one size."""


def count(detector: str, example: Any, weights: Any, thresholds: Any) -> dict[str, dict[str, Any]]:
    """For stock and the framework: launches, copies, waits, and waits by place."""
    found: dict[str, dict[str, Any]] = {}
    for title, kind in (("stock", "SoftTeacher"), ("framework", "TeacherStudent")):
        with fake_device.counting() as counted:
            variant = Variant(title, kind, detector, weights, thresholds, fake_device.NAME)
            variant.step(example)  # the first step fills caches
            counters = {"launches": counted.launches, "copies": counted.copies, "waits": counted.waits}
            for counter in counters.values():
                counter.clear()
            variant.step(example)
            found[title] = {name: counter.total() for name, counter in counters.items()}
            found[title]["waits by place"] = dict(counted.waits.most_common())
            found[title]["launches by operator"] = dict(counted.launches.most_common())
    return found


def count_detection(detector: str, example: Any, weights: Any, thresholds: Any) -> dict[int, dict[str, float]]:
    """Launches and waits of an image in the framework, by the number of images in a batch."""
    model = build("TeacherStudent", detector, thresholds)
    model.load_state_dict(weights)
    found = {}
    with fake_device.counting() as counted, torch.no_grad():
        fake_device.move(model)
        for images in BATCHES:
            inputs, samples = detection_batch(model, example, images)
            for _ in range(2):  # the first one fills caches
                counted.launches.clear()
                counted.waits.clear()
                model.teacher.eval().predict(inputs, samples)
            totals = {"launches": counted.launches.total(), "waits": counted.waits.total()}
            found[images] = {name: total / images for name, total in totals.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="r50-fpn")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 192), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    torch.set_num_threads(1)
    example = batch(0, *options.size)
    start = example, *first_weights(options.detector, example, "cpu")
    found = count(options.detector, *start)
    for title, counts in found.items():
        print(f"{title}: {counts['launches']} launches, {counts['copies']} copies, {counts['waits']} waits")
        for place, times in counts["waits by place"].items():
            print(f"    {times:4d}  {place}")
    for images, each in count_detection(options.detector, *start).items():
        print(f"detection, {images} at a time: {each['launches']:.0f} launches and {each['waits']:.0f} waits an image")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
