"""Scenes of twelve other shapes, none of which is a class of the embedded tasks, to train the small backbone on.

They stand to the embedded tasks as ImageNet stands to COCO: the same kind of image, other classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.synthetic.data_set import write_data_set
from cissod_bench.synthetic.render import Field, Outline, Stream, box, disc, polygon, triangle
from cissod_bench.synthetic.scenes import Catalogue, Pixels, draw_scene


def _hexagon(x: Field, y: Field) -> Field:
    side: Field = np.maximum(np.abs(y) - 0.78, 0.866 * np.abs(x) + 0.5 * np.abs(y) - 0.78)
    return side


def _letter_t(x: Field, y: Field) -> Field:
    return np.minimum(box(x, y + 0.62, 0.85, 0.26), box(x, y - 0.1, 0.26, 0.85))


def _letter_l(x: Field, y: Field) -> Field:
    return np.minimum(box(x + 0.5, y, 0.27, 0.9), box(x, y - 0.65, 0.77, 0.25))


def _letter_h(x: Field, y: Field) -> Field:
    return np.minimum(box(np.abs(x) - 0.55, y, 0.24, 0.9), box(x, y, 0.6, 0.2))


def _letter_u(x: Field, y: Field) -> Field:
    return np.minimum(box(np.abs(x) - 0.58, y, 0.25, 0.85), box(x, y - 0.65, 0.8, 0.22))


def _bow_tie(x: Field, y: Field) -> Field:
    inside: Field = np.maximum(np.abs(x) - 0.9, 0.82 * (np.abs(y) - 0.15) - 0.57 * np.abs(x))
    return inside


def _arrow(x: Field, y: Field) -> Field:
    return np.minimum(box(x, y - 0.35, 0.24, 0.55), triangle(1.3 * x, 1.6 * (y + 0.45)))


_CHEVRON = ((-0.9, 0.1), (0.0, -0.75), (0.9, 0.1), (0.9, 0.75), (0.0, -0.1), (-0.9, 0.75))

OUTLINES: dict[str, Outline] = {
    "hexagon": _hexagon,
    "rhombus": lambda x, y: 0.83 * np.abs(x) + 0.55 * np.abs(y) - 0.5,
    "crescent": lambda x, y: np.maximum(disc(x, y, 0.9), -disc(x - 0.45, y, 0.75)),
    "half disc": lambda x, y: np.maximum(disc(x, y + 0.3, 0.95), -y - 0.3),
    "oval": lambda x, y: 0.7 * disc(x, 1.7 * y, 0.95),
    "letter T": _letter_t,
    "letter L": _letter_l,
    "letter H": _letter_h,
    "letter U": _letter_u,
    "bow tie": _bow_tie,
    "arrow": _arrow,
    "chevron": lambda x, y: polygon(x, y, _CHEVRON),
}
OTHER_SHAPES = Catalogue(OUTLINES, {"hexagon": "dots", "oval": "stripes", "letter H": "stripes"}, 5)


def generate(folder: Path, seed: int, images: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Write a data set of these shapes: `train.json`, and `val.json` with a tenth as many images again.

    Args:
        folder: must not exist, or be empty.
        seed: any integer.
        images: images in train.
        progress: called after every image with the number of images written and the total.

    Raises:
        UserError: the folder is not empty.
    """

    def draw(part: str, number: int) -> tuple[Pixels, list[dict[str, Any]]]:
        stream = Stream("other shapes", part, seed, number)
        classes = [stream.integer(0, len(OUTLINES) - 1) for _ in range(stream.integer(2, 6))]
        return draw_scene(stream, OTHER_SHAPES, classes)

    write_data_set(
        folder,
        f"other shapes, {{}}, seed {seed}",
        OTHER_SHAPES.names,
        {"train": images, "val": images // 10},
        draw,
        progress,
    )
