"""Annotations as typed NumPy columns, which every later step works on instead of objects."""

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
UInt16 = npt.NDArray[np.uint16]


class Category(msgspec.Struct, frozen=True):
    """One class of the data: its id and name, and what LVIS says about its frequency in the whole training set."""

    id: int
    name: str
    frequency: str | None = None
    image_count: int | None = None
    instance_count: int | None = None


@dataclass(frozen=True)
class Strings:
    """Many short strings in one block of UTF-8, in a tenth of the memory of a list of `str`.

    Attributes:
        data: all strings, concatenated, uint8.
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

    def starts(self) -> Int64:
        """Start of each string in `data`, int64 `[N]`."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    def rows(self, rows: Int64) -> "Strings":
        """The strings of these rows, packed."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        return self._cut(starts, self.ends[rows] - starts, b"")

    def last_parts(self, parts: int, prefix: str) -> "Strings":
        """The last `parts` components of each string, which is a path, with `prefix` in front."""
        starts = self.starts()
        slashes = np.concatenate([np.full(parts, -1), np.flatnonzero(self.data == ord("/"))])
        # The slash found may belong to an earlier string; then the path has fewer components than wanted.
        starts = np.maximum(starts, slashes[np.searchsorted(slashes, self.ends) - parts] + 1)
        return self._cut(starts, self.ends - starts, prefix.encode())

    def with_prefix(self, prefix: str) -> "Strings":
        """Every string with `prefix` in front."""
        starts = self.starts()
        return self._cut(starts, self.ends - starts, prefix.encode())

    def find(self, text: str) -> Int64:
        """Rows of the strings that are equal to `text`."""
        wanted = text.encode()
        rows = np.flatnonzero(self.ends - self.starts() == len(wanted))
        for place, byte in enumerate(reversed(wanted), 1):
            rows = rows[self.data[self.ends[rows] - place] == byte]
        return rows

    def tolist(self) -> list[str]:
        """All strings."""
        return self.take(np.arange(len(self.ends)))

    def _cut(self, starts: Int64, lengths: Int64, prefix: bytes) -> "Strings":
        """The strings at these places of `data`, each with `prefix` in front."""
        ends = np.cumsum(lengths + len(prefix))
        data = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        if prefix and len(ends):
            _windows(data, len(prefix))[ends - lengths - len(prefix)] = np.frombuffer(prefix, np.uint8)
        # Strings of equal length are copied in one step; the file names of a data set have few lengths.
        by_length = np.argsort(lengths, kind="stable")
        for rows in np.split(by_length, np.flatnonzero(np.diff(lengths[by_length])) + 1):
            if len(rows) and (length := int(lengths[rows[0]])):
                _windows(data, length)[ends[rows] - length] = _windows(self.data, length)[starts[rows]]
        return Strings(data, ends)

    def take(self, rows: Int64) -> list[str]:
        """The strings of these rows."""
        packed = self.rows(rows)
        block = packed.data.tobytes()
        spans = zip(packed.starts().tolist(), packed.ends.tolist(), strict=True)
        if block.isascii():
            text = block.decode("ascii")  # in one step; each string is then a slice
            return [text[start:end] for start, end in spans]
        return [str(block[start:end], "utf-8", "surrogatepass") for start, end in spans]


def _windows(data: Bytes, length: int) -> Bytes:
    """All parts of `length` bytes, by their start, as a view."""
    return np.lib.stride_tricks.sliding_window_view(data, length, writeable=data.flags.writeable)


@dataclass(frozen=True)
class Columns:
    """All images and boxes of one annotation file. Images ascend by id, boxes keep the order of the file.

    Attributes:
        image_ids: int64 `[N]`, ascending, unique.
        widths, heights: in pixels, int32 `[N]`, 0 where the file does not say.
        file_names: `[N]`, as in the file.
        extras: `[N]`, a JSON object with further fields to carry over (LVIS's federated annotation), or an empty
            string.
        categories: classes in label order, ascending by id.
        box_ids: annotation ids, int64 `[M]`, -1 where the file has none.
        box_image: row of the box's image, int32 `[M]`, -1 if the file has no such image.
        box_label: label of the box's class, int16 `[M]`, -1 if the file has no such class.
        crowd: `iscrowd` of the file, bool `[M]`.
        boxes: x, y, width, height in pixels, float64 `[M, 4]`, NaN where missing.
        areas: `area` of the file (of the mask, where there is one), float64 `[M]`, width * height where missing.
        flags: what is wrong with a box, bits of `checks.Flag`, uint16 `[M]`.
        digest: of the annotations, does not depend on their order.
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
    flags: UInt16
    digest: str

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return len(self.image_ids)

    @property
    def num_boxes(self) -> int:
        """Number of boxes, M."""
        return len(self.box_ids)
