"""Whether the compressed data of a JPEG is all there.

A decoder that runs out of data leaves the rest of the image grey and goes on: OpenCV, Pillow and torchvision return it
as if it were whole, and libjpeg's warning is for the eye alone. Two questions tell it. Is a corner of the image exactly
this grey? That costs microseconds, and the answer is no for nearly every image. If so, does the image change when more
data is put behind what there is? A whole image has no use for more.

Nearly every piece cut out of a photograph's data is found (docs/training.md has the numbers), since what follows takes
as much room as before. Not found is what leaves the last block some data: changed bytes, a piece cut out of a file with
restart markers, at each of which a decoder is in step again, and what a progressive file lacks: its image is coarse.
"""

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

HEADER = 65536
"""Bytes of a file within which its header lies."""
GREY = 128
"""Value of all channels where there is no data."""
_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")  # but those that stand within compressed data
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_MORE = bytes(range(64))
"""Any bytes will do that blocks of pixels can be decoded from."""


def breaks_off(content: bytes, image: NDArray[np.uint8]) -> bool:
    """Whether data is missing at the end of a JPEG's first scan, whatever follows: an end mark, other bytes.

    Args:
        content: the file.
        image: (H, W, 3) what OpenCV has made of it, turned or not.
    """
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    if not (corners == GREY).all(axis=1).any():
        return False
    end = end_of_scan(content)
    if end is None:
        return True
    try:
        return not np.array_equal(_pixels(content), _pixels(content[:end] + _MORE + content[end:]))
    except OSError:  # what Pillow says of more than a lack of data
        return True


def end_of_scan(content: bytes) -> int | None:
    """Position of the marker that ends the first scan's data; None where no marker does, or where no scan begins."""
    position = 2
    while (marker := _MARKER.search(content, position)) is not None:
        length = int.from_bytes(content[marker.end() : marker.end() + 2])
        position = marker.end() + length
        if content[marker.end() - 1] == _START_OF_SCAN:
            following = _MARKER.search(content, position)
            return None if following is None else following.start()
    return None


def has_end(content: bytes) -> bool:
    """Whether a JPEG's segments and scans lead to its end mark, whatever follows it, such as a video or text."""
    position = 2
    while (marker := _MARKER.search(content, position)) is not None:
        if content[marker.end() - 1] == _END_OF_IMAGE:
            return True
        position = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return False


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of any image by its header, however large; zeros where Pillow does not know it."""
    parser = ImageFile.Parser()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decoded
    try:
        parser.feed(content[:HEADER])
    except (OSError, SyntaxError, ValueError):
        pass
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return (0, 0) if parser.image is None else parser.image.size


def _pixels(content: bytes) -> NDArray[np.uint8]:
    """The image as Pillow, which keeps libjpeg's warnings from standard error, decodes it."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)
