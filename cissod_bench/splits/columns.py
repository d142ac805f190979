"""Annotations as typed NumPy columns: what every later step works on instead of objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
UInt64 = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_BLOCK = 1 << 16


class Category(msgspec.Struct, frozen=True):
    """One class of the data: its id and name, and what LVIS says about its frequency in the whole training set."""

    id: int
    name: str
    frequency: str | None = None
    image_count: int | None = None
    instance_count: int | None = None


@dataclass(frozen=True)
class Strings:
    """Many short strings as one block of UTF-8: a tenth of the memory of a list of `str`.

    Attributes:
        data: all strings one after the other, uint8.
        ends: end of each string in `data`, int64 `[N]`.
    """

    data: Bytes
    ends: Int64

    @classmethod
    def of(cls, strings: Sequence[str]) -> "Strings":
        """Pack a sequence of strings."""
        joined = "\0".join(strings)
        if joined.count("\0") == len(strings) - 1:
            # One call encodes all strings; the separators then tell where each ends.
            block = np.frombuffer(joined.encode("utf-8", "surrogatepass"), np.uint8)
            separators = np.flatnonzero(block == 0)
            ends = np.append(separators, len(block)) - np.arange(len(strings))
            return cls(np.delete(block, separators), ends.astype(np.int64))
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths))

    def rows(self, rows: Int64) -> "Strings":
        """The strings of these rows, packed."""
        starts = np.concatenate([[0], self.ends[:-1]])[rows] if len(self.ends) else self.ends
        lengths = self.ends[rows] - starts
        ends = np.cumsum(lengths)
        data = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        for first in range(0, len(rows), _BLOCK):
            part = slice(first, first + _BLOCK)
            begin, end = ends[first] - lengths[first], ends[part][-1]
            # Of every byte its place in the old block: how far its string has moved, and its place in the new one.
            moved = np.repeat(starts[part] - ends[part] + lengths[part], lengths[part])
            data[begin:end] = self.data[moved + np.arange(begin, end)]
        return Strings(data, ends)

    def take(self, rows: Int64) -> list[str]:
        """The strings of these rows."""
        data = np.ascontiguousarray(self.data).data
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        return [
            str(data[start:end], "utf-8", "surrogatepass")
            for start, end in zip(starts.tolist(), self.ends[rows].tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Columns:
    """All images and boxes of one annotation file. Images ascend by id, boxes keep the order of the file.

    Attributes:
        image_ids: int64 `[N]`, ascending, unique.
        widths, heights: pixels, int32 `[N]`, 0 where the file does not say.
        file_names: `[N]`, as the file has them.
        extras: `[N]`, JSON object of further fields to carry over (LVIS's federated annotation), or an empty string.
        categories: classes in label order, ascending by id.
        box_ids: annotation ids, int64 `[M]`, -1 where the file has none.
        box_image: row of the box's image, int32 `[M]`, -1 if the file has no such image.
        box_label: label of the box's class, int16 `[M]`, -1 if the file has no such class.
        crowd: int `iscrowd` of the file, bool `[M]`.
        boxes: x, y, width, height in pixels, float64 `[M, 4]`, NaN where missing.
        areas: `area` of the file (of the mask, where there is one), float64 `[M]`, width * height where missing.
        health: what is wrong with a box, bits of `health.Flag`, uint8 `[M]`.
        content: digest of the annotations that does not depend on their order.
    """

    image_ids: Int64
    widths: Int32
    heights: Int32
    file_names: Strings
    extras: Strings
    categories: tuple[Category, ...]
    box_ids: Int64
    box_image: Int32
    box_label: Int16
    crowd: Bool
    boxes: Float64
    areas: Float64
    health: Bytes
    content: str

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return len(self.image_ids)

    @property
    def num_boxes(self) -> int:
        """Number of boxes, M."""
        return len(self.box_ids)
