"""Scenes of flat objects with clutter, shadows and occlusion, and the boxes of what is visible of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    wave,
)

Pixels = NDArray[np.uint8]

SIZE = 128
"""Height and width of every image in pixels."""

MIN_VISIBLE = 0.4
"""Objects of which a smaller part is visible are not annotated."""

SHADOWS = 0.4
"""Fraction of the objects that cast a shadow; the shadow is not part of the object."""


@dataclass(frozen=True)
class Catalogue:
    """Classes and how they look.

    Attributes:
        outlines: name of a class -> signed distance to its outline; category ids are positions, counted from 1.
        textures: name of a class -> "stripes" or "dots"; the others are plain.
        hues: number of usual hues; classes take turns.
    """

    outlines: Mapping[str, Outline]
    textures: Mapping[str, str]
    hues: int

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of their category ids."""
        return tuple(self.outlines)


def draw_scene(stream: Stream, catalogue: Catalogue, classes: list[int]) -> tuple[Pixels, list[dict[str, Any]]]:
    """An image of objects of the given classes, positions in the catalogue, and its annotations; see `draw_image`."""
    names = [catalogue.names[place] for place in classes]
    shade = stream.uniform(0.2, 0.8)  # lightness of the background, which objects avoid
    canvas = Canvas(_background(stream, shade))
    for _ in range(stream.integer(2, 7)):
        _clutter(stream, canvas, shade)
    taken: list[Pose] = []
    sizes: list[int] = []
    for owner, name in enumerate(names):
        pose = _place(stream, taken)
        taken.append(pose)
        sizes.append(_object(stream, canvas, catalogue, name, pose, shade, owner))
    for _ in range(stream.integer(0, 2)):
        _bar(stream, canvas, stream.uniform(1.0, 2.5), shade, hides=True)
    records = []
    for owner, name in enumerate(names):
        rows, columns = np.nonzero(canvas.owner == owner)
        if len(rows) == 0 or len(rows) < MIN_VISIBLE * sizes[owner]:
            continue
        left, top = int(columns.min()), int(rows.min())
        size = [int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        records.append({"category_id": catalogue.names.index(name) + 1, "bbox": [left, top, *size], "area": len(rows)})
    return _expose(stream, canvas), records


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


def _object(
    stream: Stream, canvas: Canvas, catalogue: Catalogue, name: str, pose: Pose, shade: float, owner: int
) -> int:
    """Paint an object; returns how many pixels it covers, including hidden ones and those outside the image."""
    window = pose.window()
    x, y = pose.local(window)
    distance = catalogue.outlines[name](x, y)
    coverage = _coverage(distance, pose)
    usual = (catalogue.names.index(name) % catalogue.hues) / catalogue.hues
    hue = usual + stream.uniform(-0.06, 0.06) if stream.chance(0.7) else stream.uniform(0.0, 1.0)
    lightness = _contrasting(stream, shade)
    base = _rgb(colour(hue, stream.uniform(0.5, 0.95), lightness))
    # A second colour that can be told from the first by its lightness, for patterns, runs and rims.
    second = 0.4 * lightness if lightness > 0.4 else lightness + 0.35
    other = _rgb(colour(hue + stream.uniform(-0.1, 0.1), stream.uniform(0.2, 0.9), second))
    mix = _texture(stream, catalogue.textures.get(name, "plain"), x, y)
    paint = base + (other - base) * mix[..., None]
    if stream.chance(0.4):
        paint = np.where((distance * pose.radius > -1.5)[..., None], other, paint)
    # Shading: one side is lighter, whatever the rotation of the object.
    tilt_x, tilt_y = stream.uniform(-0.2, 0.2), stream.uniform(-0.2, 0.2)
    paint = paint * (1.0 + tilt_x * x + tilt_y * y)[..., None]
    if stream.chance(SHADOWS):
        shadow = pose.moved(stream.uniform(-3.0, 3.0), stream.uniform(1.0, 3.0))
        canvas.paint(window, _coverage(catalogue.outlines[name](*shadow.local(window)), pose) * 0.4, np.zeros(3))
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
