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
from numpy.typing import NDArray
from PIL import Image

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.io import canonical_json, staged_folder, write_text
from cissod_bench.synthetic.render import (
    Canvas,
    Colour,
    Field,
    Outline,
    Pose,
    Stream,
    Window,
    box,
    clouds,
    colour,
    disc,
    finish,
    polygon,
    random_direction,
    triangle,
    wave,
)

Pixels = NDArray[np.uint8]

SIZE = 128
"""Height and width of every image in pixels."""

TRAIN_IMAGES, VAL_IMAGES = 1500, 300

MIN_VISIBLE = 0.4
"""Objects of which a smaller part is visible are not annotated."""

SHADOWS = 0.4
"""Fraction of the objects that cast a shadow; the shadow is not part of the object."""

MAJORITY = ("striped ball", "ring", "plus", "five-pointed star", "square", "triangle")
MINORITY = ("dotted ball", "broken ring", "crutch cross", "six-pointed star", "notched square", "hollow triangle")
CLASSES = MAJORITY + MINORITY
"""Category ids are positions in this tuple, counted from 1; class k of MAJORITY pairs with class k of MINORITY."""

_TEXTURED = {"striped ball": "stripes", "dotted ball": "dots"}

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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder. Name a folder that does not exist yet.")
    done, total = 0, train_images + val_images
    with staged_folder(folder, sync=False) as staging:  # made again at any time
        for part, count in (("train", train_images), ("val", val_images)):
            (staging / part).mkdir()
            records = []
            for number in range(1, count + 1):
                pixels, boxes = draw_image(task, part, seed, number)
                Image.fromarray(pixels).save(staging / part / _file_name(number))
                records.append(boxes)
                done += 1
                if progress:
                    progress(done, total)
            write_text(staging / f"{part}.json", canonical_json(_coco(task, part, seed, records)) + "\n")


def _file_name(number: int) -> str:
    return f"{number:06d}.png"


def _coco(task: str, part: str, seed: int, records: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The COCO file of one part: ids count from 1, boxes are whole pixels `[x, y, width, height]`."""
    annotations: list[dict[str, Any]] = []
    for number, boxes in enumerate(records, start=1):
        for record in boxes:
            annotations.append(record | {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0})
    return {
        "info": {"description": f"cissod-bench {task}, {part}, seed {seed}", "version": "1"},
        "images": [
            {"id": number, "file_name": _file_name(number), "height": SIZE, "width": SIZE}
            for number in range(1, len(records) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(CLASSES, start=1)],
    }


def draw_image(task: str, part: str, seed: int, number: int) -> tuple[Pixels, list[dict[str, Any]]]:
    """One image, uint8 `[SIZE, SIZE, 3]`, and its annotations as dicts of `category_id`, `bbox` and `area`."""
    stream = Stream(task, part, seed, number)
    names = [CLASSES[place] for place in _scene_classes(stream, task, part)]
    shade = stream.uniform(0.2, 0.8)  # lightness of the background, which objects avoid
    canvas = Canvas(_background(stream, shade))
    for _ in range(stream.integer(2, 7)):
        _clutter(stream, canvas, shade)
    taken: list[Pose] = []
    sizes: list[int] = []
    for owner, name in enumerate(names):
        pose = _place(stream, taken)
        taken.append(pose)
        sizes.append(_object(stream, canvas, name, pose, shade, owner))
    for _ in range(stream.integer(0, 2)):
        _bar(stream, canvas, stream.uniform(1.0, 2.5), shade, hides=True)
    records = []
    for owner, name in enumerate(names):
        rows, columns = np.nonzero(canvas.owner == owner)
        if len(rows) == 0 or len(rows) < MIN_VISIBLE * sizes[owner]:
            continue
        left, top = int(columns.min()), int(rows.min())
        size = [int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        records.append({"category_id": CLASSES.index(name) + 1, "bbox": [left, top, *size], "area": len(rows)})
    return _expose(stream, canvas), records


def _scene_classes(stream: Stream, task: str, part: str) -> list[int]:
    """Positions in CLASSES of the 2 to 5 objects of an image."""
    count = 2 + stream.weighted((3, 4, 3, 1))
    half = len(MAJORITY)
    if task == "shapes-lt":
        weights = _LONG_TAIL if part == "train" else (1,) * len(CLASSES)
        return [stream.weighted(weights) for _ in range(count)]
    first, last = ((0, half - 1), (half, 2 * half - 1), (0, 2 * half - 1))[stream.weighted(_SCENES)]
    return [stream.integer(first, last) for _ in range(count)]


def _place(stream: Stream, taken: list[Pose]) -> Pose:
    """A pose that leaves the earlier objects mostly visible, or the last of 30 attempts."""
    cosine, sine = random_direction(stream)
    for _ in range(30):
        radius = stream.uniform(11.0, 25.0)
        x, y = (stream.uniform(0.7 * radius, SIZE - 0.7 * radius) for _ in range(2))
        pose = Pose(x, y, radius, stream.uniform(0.87, 1.15), cosine, sine)
        if all(_gap(pose, other) > 0.8 * (radius + other.radius) for other in taken):
            break
    return pose


def _gap(one: Pose, other: Pose) -> float:
    dx, dy = one.x - other.x, one.y - other.y
    return float(np.sqrt(dx * dx + dy * dy))


def _random_pose(stream: Stream, radius: float) -> Pose:
    x, y = stream.uniform(0.0, SIZE), stream.uniform(0.0, SIZE)
    return Pose(x, y, radius, stream.uniform(0.6, 1.6), *random_direction(stream))


def _contrasting(stream: Stream, shade: float) -> float:
    """A lightness at least 0.2 from the background's."""
    lightness = stream.uniform(0.15, 0.75)
    return lightness if lightness < shade - 0.2 else max(lightness + 0.25, shade + 0.2)


def _rgb(rgb: Colour) -> Field:
    return np.array(rgb)


def _background(stream: Stream, shade: float) -> Field:
    """Two dull colours mixed by clouds, by clouds and stripes, or by clouds and a checkered pattern."""
    hue, spread = stream.uniform(0.0, 1.0), stream.uniform(0.05, 0.18)
    dark = _rgb(colour(hue, stream.uniform(0.0, 0.45), shade - spread))
    light = _rgb(colour(hue + stream.uniform(-0.15, 0.15), stream.uniform(0.0, 0.45), shade + spread))
    mix = clouds(stream, SIZE, stream.integer(2, 6), 4)
    pattern = stream.weighted((2, 1, 1))
    if pattern:
        x, y = _random_pose(stream, 1.0).local(_whole())
        period = stream.uniform(6.0, 24.0)
        regular = wave(x, period)
        if pattern == 2:
            regular = np.abs(regular - wave(y, period))
        mix = 0.5 * mix + 0.5 * regular
    return dark + (light - dark) * mix[..., None]


def _whole() -> Window:
    return Window(0, 0, SIZE, SIZE)


def _clutter(stream: Stream, canvas: Canvas, shade: float) -> None:
    """Clutter: a thin line, a small blot, or a quadrilateral or oval of the size of an object."""
    kind = stream.weighted((3, 3, 2, 1))
    if kind == 0:
        _bar(stream, canvas, stream.uniform(0.6, 1.6), shade, hides=False)
        return
    pose = _random_pose(stream, stream.uniform(2.0, 5.0) if kind == 1 else stream.uniform(8.0, 18.0))
    window = pose.window()
    x, y = pose.local(window)
    if kind == 2:
        corners = [(a * stream.uniform(0.3, 1.0), b * stream.uniform(0.3, 1.0)) for a, b in _QUADRANTS]
        distance = polygon(x, y, corners)
    else:
        distance = disc(x, 1.8 * y, 0.9) if kind == 3 else disc(x, y, 0.9)
    paint = colour(stream.uniform(0.0, 1.0), stream.uniform(0.0, 0.8), _contrasting(stream, shade))
    canvas.paint(window, _coverage(distance, pose) * stream.uniform(0.5, 1.0), _rgb(paint))


_QUADRANTS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def _bar(stream: Stream, canvas: Canvas, half_width: float, shade: float, *, hides: bool) -> None:
    """A straight bar through a random point; one that hides objects takes their pixels."""
    pose = _random_pose(stream, 1.0)
    x, y = pose.local(_whole())
    distance = box(x, y, stream.uniform(15.0, 90.0), half_width)
    paint = colour(stream.uniform(0.0, 1.0), stream.uniform(0.0, 0.4), _contrasting(stream, shade))
    canvas.paint(_whole(), np.clip(0.5 - distance, 0.0, 1.0), _rgb(paint), -1 if hides else None)


def _coverage(distance: Field, pose: Pose) -> Field:
    return np.clip(0.5 - distance * pose.radius, 0.0, 1.0)


def _object(stream: Stream, canvas: Canvas, name: str, pose: Pose, shade: float, owner: int) -> int:
    """Paint an object; returns how many pixels it covers, including hidden ones and those outside the image."""
    window = pose.window()
    x, y = pose.local(window)
    distance = OUTLINES[name](x, y)
    coverage = _coverage(distance, pose)
    pair = (CLASSES.index(name) % len(MAJORITY)) / len(MAJORITY)
    hue = pair + stream.uniform(-0.06, 0.06) if stream.chance(0.7) else stream.uniform(0.0, 1.0)
    lightness = _contrasting(stream, shade)
    base = _rgb(colour(hue, stream.uniform(0.5, 0.95), lightness))
    # A second colour that can be told from the first by its lightness, for patterns, runs and rims.
    second = 0.4 * lightness if lightness > 0.4 else lightness + 0.35
    other = _rgb(colour(hue + stream.uniform(-0.1, 0.1), stream.uniform(0.2, 0.9), second))
    mix = _texture(stream, _TEXTURED.get(name, "plain"), x, y)
    paint = base + (other - base) * mix[..., None]
    if stream.chance(0.4):
        paint = np.where((distance * pose.radius > -1.5)[..., None], other, paint)
    # Shading: one side is lighter, whatever the rotation of the object.
    tilt_x, tilt_y = stream.uniform(-0.2, 0.2), stream.uniform(-0.2, 0.2)
    paint = paint * (1.0 + tilt_x * x + tilt_y * y)[..., None]
    if stream.chance(SHADOWS):
        shadow = pose.moved(stream.uniform(-3.0, 3.0), stream.uniform(1.0, 3.0))
        canvas.paint(window, _coverage(OUTLINES[name](*shadow.local(window)), pose) * 0.4, np.zeros(3))
    canvas.paint(window, coverage, paint, owner)
    return int(np.count_nonzero(coverage >= 0.5))


def _texture(stream: Stream, kind: str, x: Field, y: Field) -> Field:
    """Share of the second colour at every pixel, 0 to 1."""
    period = stream.uniform(0.42, 0.6)
    if kind == "stripes":
        return np.clip(6.0 * wave(x, period) - 2.5, 0.0, 1.0)
    if kind == "dots":
        return np.clip(5.0 * wave(x, period) + 5.0 * wave(y, period) - 6.5, 0.0, 1.0)
    if stream.chance(0.5):
        return np.zeros(x.shape)
    # Anything from flat to a gradient of the second colour across the object.
    return np.clip(0.3 + stream.uniform(-0.5, 0.5) * x + stream.uniform(-0.5, 0.5) * y, 0.0, 0.7)


def _expose(stream: Stream, canvas: Canvas) -> Pixels:
    """Light that falls off across the image, a tint, and sensor noise."""
    place = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    slope = stream.uniform(-0.35, 0.35) * place + stream.uniform(-0.35, 0.35) * place[:, None]
    tint = np.array([stream.uniform(0.85, 1.15) for _ in range(3)])
    noise = (stream.field(SIZE, SIZE, 3) - 0.5) * stream.uniform(0.0, 0.1)
    return finish(canvas.pixels, (1.0 + slope)[..., None] * tint, noise)
