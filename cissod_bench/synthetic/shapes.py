"""The embedded data sets `shapes` and `shapes-lt`: COCO-format detection data made from a seed, without a download.

Twelve classes form six pairs whose members differ in one detail (a gap, a notch, a sixth point, dots for stripes). The
first of a pair is a majority class, the second a minority class. A pair shares its usual hue: colour helps to find an
object and to tell pairs apart, but never to tell majority from minority. Backgrounds are textured. Clutter includes
shapes that have the size and colours of objects and belong to no class. Objects overlap, are crossed by bars, rotated,
stretched, shaded and cut by the image border.

* `shapes`, scenario 1 of the paper: in train and val alike, minority objects are as frequent as majority objects. Which
  boxes are labelled is up to the split. Scenes hold one group or both, as real scenes favour some classes.
* `shapes-lt`, scenario 2: every train image follows one long-tailed distribution, and so do D_l and D_u. Val images
  are balanced, so that the AP of a rare class rests on as many boxes as that of a frequent one.

Annotations: the box of an object encloses its visible pixels, those that it covers by at least half and that nothing
painted later covers; `area` counts these pixels. This follows COCO, whose annotators outlined what is visible. Objects
of which less than `MIN_VISIBLE` is visible are not annotated; their placement makes that rare.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.errors import unknown_name
from cissod_bench.synthetic.data_set import write_data_set
from cissod_bench.synthetic.render import (
    Field,
    Outline,
    Stream,
    box,
    disc,
    polygon,
    triangle,
)
from cissod_bench.synthetic.scenes import Catalogue, Pixels, draw_scene

TRAIN_IMAGES, VAL_IMAGES = 1500, 300

MAJORITY = ("striped ball", "ring", "plus", "five-pointed star", "square", "triangle")
MINORITY = ("dotted ball", "broken ring", "crutch cross", "six-pointed star", "notched square", "hollow triangle")
CLASSES = MAJORITY + MINORITY
"""Category ids are positions in this tuple, counted from 1; class k of MAJORITY pairs with class k of MINORITY."""

# Weights of the classes in the train images of shapes-lt: about 0.66 from class to class, at the end 0.5 and less.
_LONG_TAIL = (3400, 2240, 1480, 980, 640, 425, 280, 185, 120, 70, 35, 15)

# Scenes of shapes: weights of majority only, minority only, both.
_SCENES = (9, 7, 4)

# Corners of the five-pointed star, outer radius 1, inner radius 0.44.
_STAR5 = (
    (0.0, -1.0), (0.2586, -0.3560), (0.9511, -0.3090), (0.4185, 0.1360), (0.5878, 0.8090),
    (0.0, 0.44), (-0.5878, 0.8090), (-0.4185, 0.1360), (-0.9511, -0.3090), (-0.2586, -0.3560),
)  # fmt: skip


def _plus(x: Field, y: Field, arm: float) -> Field:
    return np.minimum(box(x, y, 0.95, arm), box(x, y, arm, 0.95))


def _crutch_cross(x: Field, y: Field) -> Field:
    bars = np.minimum(box(np.abs(x) - 0.8, y, 0.18, 0.52), box(x, np.abs(y) - 0.8, 0.52, 0.18))
    cross: Field = np.minimum(_plus(x, y, 0.24), bars)
    return cross


def _notched_square(x: Field, y: Field) -> Field:
    notch = 0.8 * np.abs(x) + 0.6 * (y - 0.15)
    return np.maximum(box(x, y, 0.8, 0.8), -notch)


def _ring(x: Field, y: Field) -> Field:
    band: Field = np.abs(disc(x, y, 0.72)) - 0.26
    return band


OUTLINES: dict[str, Outline] = {
    "striped ball": lambda x, y: disc(x, y, 0.9),
    "dotted ball": lambda x, y: disc(x, y, 0.9),
    "ring": _ring,
    "broken ring": lambda x, y: np.maximum(_ring(x, y), -box(x - 0.75, y, 0.6, 0.36)),
    "plus": lambda x, y: _plus(x, y, 0.32),
    "crutch cross": _crutch_cross,
    "five-pointed star": lambda x, y: polygon(x, y, _STAR5),
    "six-pointed star": lambda x, y: np.minimum(triangle(x, y), triangle(x, -y)),
    "square": lambda x, y: box(x, y, 0.8, 0.8),
    "notched square": _notched_square,
    "triangle": lambda x, y: triangle(x, y - 0.15),
    "hollow triangle": lambda x, y: np.maximum(triangle(x, y - 0.15), -triangle(x, y - 0.15, 0.2)),
}
SHAPES = Catalogue(
    {name: OUTLINES[name] for name in CLASSES}, {"striped ball": "stripes", "dotted ball": "dots"}, len(MAJORITY)
)


def generate(
    task: str,
    folder: Path,
    seed: int,
    *,
    train_images: int = TRAIN_IMAGES,
    val_images: int = VAL_IMAGES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a data set: `train.json`, `val.json`, `train/*.png`, `val/*.png`.

    A seed gives the same annotations, to the byte, and the same pixels on every machine; the bytes of a PNG depend on
    zlib. The folder appears whole or not at all. Image k does not depend on how many images there are.

    Args:
        task: `shapes` or `shapes-lt`.
        folder: must not exist, or be empty.
        seed: any integer.
        train_images: images in train, 1500 by default.
        val_images: images in val, 300 by default.
        progress: called after every image with the number of images written and the total.

    Raises:
        UserError: the task is unknown, or the folder is not empty.
    """
    if task not in ("shapes", "shapes-lt"):
        raise unknown_name("embedded data set", task, ("shapes", "shapes-lt"))
    parts = {"train": train_images, "val": val_images}

    def draw(part: str, number: int) -> tuple[Pixels, list[dict[str, Any]]]:
        return draw_image(task, part, seed, number)

    write_data_set(folder, f"{task}, {{}}, seed {seed}", CLASSES, parts, draw, progress)


def draw_image(task: str, part: str, seed: int, number: int) -> tuple[Pixels, list[dict[str, Any]]]:
    """One image, uint8 `[SIZE, SIZE, 3]`, and its annotations as dicts of `category_id`, `bbox` and `area`."""
    stream = Stream(task, part, seed, number)
    return draw_scene(stream, SHAPES, _scene_classes(stream, task, part))


def _scene_classes(stream: Stream, task: str, part: str) -> list[int]:
    """Positions in CLASSES of the 2 to 5 objects of an image."""
    count = 2 + stream.weighted((3, 4, 3, 1))
    half = len(MAJORITY)
    if task == "shapes-lt":
        weights = _LONG_TAIL if part == "train" else (1,) * len(CLASSES)
        return [stream.weighted(weights) for _ in range(count)]
    first, last = ((0, half - 1), (half, 2 * half - 1), (0, 2 * half - 1))[stream.weighted(_SCENES)]
    return [stream.integer(first, last) for _ in range(count)]
