"""Detections drawn into their image, by torchvision, in a font that has the names of the classes.

mmdet's visualizer draws by way of a matplotlib figure, which may change the size of the image and chooses fonts without
regard to the names. torchvision's `draw_bounding_boxes` works on the pixels and takes the font that it is given.
"""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.utils import draw_bounding_boxes

from cissod_bench.errors import UserError
from cissod_bench.splits.fonts import as_codes, default_font, font_with, lacking

SMALL = 320
"""Pixels of the shorter side below which an image is enlarged for its picture: names would cover it otherwise."""


def draw(
    file: Path,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> bytes:
    """An image with N boxes, each class in a colour of its own, the best on top; in the format of the image's name.

    A small image is enlarged by a whole number.

    Args:
        file: image.
        boxes: (N, 4): x, y, width, height in pixels.
        scores: (N,), descending.
        labels: (N,), positions in `classes`.
        classes: names of all classes of the detector.

    Raises:
        UserError: the format of the image's name cannot hold the picture.
    """
    pixels: Any = mmcv.imfrombytes(file.read_bytes(), flag="color")  # as it was read for the detector
    if len(boxes):
        shorter, longer = sorted(pixels.shape[:2])
        times = max(1, min(-(-SMALL // shorter), 4 * SMALL // longer))
        pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
        line = max(2, round(times * shorter / 300))
        names, font = readable(tuple(classes))
        order = range(len(boxes) - 1, -1, -1)
        colors = [class_color(int(labels[index]), len(classes)) for index in order]
        corners = (times * np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))[::-1].round()
        drawn = draw_bounding_boxes(
            torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1].transpose(2, 0, 1))),
            torch.from_numpy(corners),
            labels=[f"{names[labels[index]]} {scores[index]:.2f}" for index in order],
            colors=colors,
            width=line,
            font=font,
            font_size=max(11, 5 * line),
            label_colors=["black" if _is_light(color) else "white" for color in colors],
            fill_labels=True,
        )
        pixels = np.ascontiguousarray(drawn.numpy().transpose(1, 2, 0)[:, :, ::-1])
    written, content = cv2.imencode(file.suffix.lower(), pixels)
    if not written:
        height, width = pixels.shape[:2]
        raise UserError(f"{file}: a picture of {width} x {height} pixels cannot be written as {file.suffix}.")
    return content.tobytes()


def class_color(label: int, count: int) -> tuple[int, int, int]:
    """Red, green and blue of a class among `count`: evenly spaced hues."""
    red, green, blue = colorsys.hsv_to_rgb(label / count, 1.0, 220 / 255)
    return round(255 * red), round(255 * green), round(255 * blue)


@functools.cache
def readable(names: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The names as they can be drawn, and the file of a font that has all their characters."""
    letters = frozenset("".join(names)) - {" "}
    if not lacking("".join(letters)):
        return names, default_font()
    font = font_with(letters | frozenset("0123456789."))
    if font is not None:
        return names, font
    return tuple(as_codes(name, found) if (found := lacking(name)) else name for name in names), default_font()


def _is_light(color: tuple[int, int, int]) -> bool:
    """Whether black is easier to read on a colour than white: its luma (ITU-R BT.601) is above the middle."""
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue > 127.5
