"""A made-up data set of four classes, the task that fits it, and a split of it."""

import random
from pathlib import Path
from typing import Any

from cissod_bench.splits.make import Made, make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.tasks.records import SelectionRule, Task

TOY_TASK = """
name = "toy"
[data]
train_annotations = "toy.json"
train_images = "."
validation_fraction = 0.1
[groups]
minority = ["rare", "scarce"]
"""
"""Task file of the toy data in `toy.json`."""


def toy_data(seed: int = 0, images: int = 200) -> dict[str, Any]:
    """`images` images with up to six boxes of four classes; `rare` and `scarce` in about one image in ten."""
    generator = random.Random(seed)
    content: dict[str, Any] = {
        "images": [
            {"id": 7 * number + 3, "file_name": f"{number:04}.jpg", "width": 64, "height": 48}
            for number in range(images)
        ],
        "annotations": [],
        "categories": [
            {"id": 9, "name": "common"},
            {"id": 2, "name": "usual"},
            {"id": 5, "name": "rare"},
            {"id": 4, "name": "scarce"},
        ],
    }
    for image in content["images"]:
        for _ in range(generator.randrange(6)):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": generator.choices([9, 2, 5, 4], [10, 8, 1, 1])[0],
                    "bbox": [generator.randrange(40), generator.randrange(30), 8.5, 9],
                    "area": 76.5,
                    "iscrowd": int(generator.random() < 0.05),
                }
            )
    return content


TOY = Task(
    name="toy",
    title="toy",
    version=1,
    dataset="custom",
    files=None,
    minority=("rare", "scarce"),
    selection=SelectionRule(fraction=0.1, floor=3),
)


def make_split(task: Task, annotations: Path, out: Path, *, seed: int = 0, force: bool = False) -> Made:
    return make_splits(task, annotations, [(out, Variant(seed))], force=force)[0]
