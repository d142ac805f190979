"""Checks of annotations: a flag for every fault of a box, a report, and which boxes a task leaves out."""

from collections.abc import Mapping
from dataclasses import replace
from enum import IntFlag
from typing import Any

import numpy as np

from cissod_bench.coco.columns import Bool, Columns, Float64, Int16, Int32, Int64, UInt16, UInt64


class Flag(IntFlag):
    """What can be wrong with one box."""

    NOT_FINITE = 1
    NO_AREA = 2
    OUTSIDE = 4
    CROSSES_BORDER = 8
    DUPLICATE = 16
    UNKNOWN_IMAGE = 32
    UNKNOWN_CLASS = 64
    UNMAPPED = 128
    NO_SIZE = 256
    THIN = 512
    IGNORED = 1024


MEANING: Mapping[Flag, str] = {
    Flag.NOT_FINITE: "box missing or not finite",
    Flag.NO_AREA: "box of zero or negative size",
    Flag.OUTSIDE: "box wholly outside its image",
    Flag.CROSSES_BORDER: "box reaches over the border of its image",
    Flag.DUPLICATE: "same box of the same class twice in an image",
    Flag.UNKNOWN_IMAGE: "annotation of an image that the file lacks",
    Flag.UNKNOWN_CLASS: "annotation of a class that the file lacks",
    Flag.UNMAPPED: "annotation of a class without counterpart in Objects365",
    Flag.NO_SIZE: "box of an image whose width and height are not known",
    Flag.THIN: "box narrower or lower than one pixel",
    Flag.IGNORED: "box with `ignore`",
}

UNUSABLE = (
    Flag.NOT_FINITE
    | Flag.NO_AREA
    | Flag.OUTSIDE
    | Flag.UNKNOWN_IMAGE
    | Flag.UNKNOWN_CLASS
    | Flag.UNMAPPED
    | Flag.NO_SIZE
    | Flag.IGNORED
)
"""Dropped for every task: no trainer can use such a box, so it does not count for the selection either."""

_DROPPED = {
    "coco": UNUSABLE,
    "lvis": UNUSABLE,
    "objects365": UNUSABLE | Flag.DUPLICATE,
}
FEWEST = 20
"""Boxes from which on their form can be told."""
_TOLERANCE = 1.0
_BLOCK = 1 << 14  # boxes whose intermediate results fit into the processor's cache


def dropped(dataset: str) -> Flag:
    """Flags whose boxes a task of this data set leaves out.

    Duplicates are kept in COCO and LVIS, since every published number rests on their official annotations; elsewhere
    they are dropped. So are boxes below one pixel, which mmdet does not train on, except from the official data sets.
    A box that reaches over the border is kept everywhere: the trainer clips it, as for the published numbers.
    """
    return _DROPPED.get(dataset, UNUSABLE | Flag.DUPLICATE | Flag.THIN)


def box_flags(
    boxes: Float64,
    box_image: Int32,
    box_label: Int16,
    row_hashes: UInt64,
    box_ids: Int64,
    widths: Int32,
    heights: Int32,
    ignored: Bool,
) -> UInt16:
    """Flags of every box, uint16 `[M]`; arguments as in `Columns`, `row_hashes` from `digest.box_hashes`.

    Of several equal boxes the one with the lowest annotation id is kept, whatever their order in the file.
    """
    flags = _place_flags(boxes, box_image, widths, heights)
    for rows, flag in (
        (box_image < 0, Flag.UNKNOWN_IMAGE),
        (box_label < 0, Flag.UNKNOWN_CLASS),
        (ignored, Flag.IGNORED),
        (_duplicates(row_hashes, box_ids), Flag.DUPLICATE),
    ):
        flags[rows] |= int(flag)
    return flags


def with_sizes(columns: Columns, widths: Int32, heights: Int32) -> Columns:
    """Columns whose images have these sizes, with the flags that follow from them."""
    placed = Flag.NO_SIZE | Flag.OUTSIDE | Flag.CROSSES_BORDER
    flags = columns.flags & np.uint16(~int(placed) & 0xFFFF)
    flags |= _place_flags(columns.boxes, columns.box_image, widths, heights)
    return replace(columns, widths=widths, heights=heights, flags=flags)


def _place_flags(boxes: Float64, box_image: Int32, widths: Int32, heights: Int32) -> UInt16:
    """Flags that follow from the coordinates of a box and the size of its image, uint16 `[M]`.

    Boxes may reach over the border by one pixel, as official boxes do because of rounding.
    """
    flags = np.zeros(len(boxes), np.uint16)
    widths, heights = np.append(widths, np.int32(0)), np.append(heights, np.int32(0))  # for row -1, an unknown image
    for start in range(0, len(boxes), _BLOCK):
        part = slice(start, start + _BLOCK)
        corners = np.ascontiguousarray(boxes[part].T)
        x, y, width, height = corners
        rows = box_image[part]
        known = rows >= 0
        finite = np.isfinite(corners).all(axis=0)
        image_width, image_height = widths[rows], heights[rows]
        sized = finite & (image_width > 0) & (image_height > 0)
        with np.errstate(invalid="ignore", over="ignore"):  # coordinates of 1e308 are finite, their sum is not
            no_area = finite & ~((width > 0) & (height > 0))
            thin = finite & ~no_area & ((width < 1) | (height < 1))
            right, bottom = x + width, y + height
            outside = sized & ((x >= image_width) | (y >= image_height) | (right <= 0) | (bottom <= 0))
            crosses = sized & ~outside
            crosses &= (
                (x < -_TOLERANCE)
                | (y < -_TOLERANCE)
                | (right > image_width + _TOLERANCE)
                | (bottom > image_height + _TOLERANCE)
            )
        block = flags[part]
        for condition, flag in (
            (~finite, Flag.NOT_FINITE),
            (no_area, Flag.NO_AREA),
            (thin, Flag.THIN),
            (known & ~((image_width > 0) & (image_height > 0)), Flag.NO_SIZE),
            (outside, Flag.OUTSIDE),
            (crosses, Flag.CROSSES_BORDER),
        ):
            if condition.any():
                block[condition] |= int(flag)
    return flags


def _duplicates(row_hashes: UInt64, box_ids: Int64) -> Int64:
    """Rows that repeat an earlier row, in the order of annotation ids."""
    ordered = np.sort(row_hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return np.empty(0, np.int64)
    rows = np.flatnonzero(np.isin(row_hashes, repeated))
    rows = rows[np.lexsort((box_ids[rows], row_hashes[rows]))]
    again: Int64 = rows[1:][row_hashes[rows[1:]] == row_hashes[rows[:-1]]]
    return again


def looks_like_corners(boxes: Float64) -> bool:
    """Whether (N, 4) boxes are x1, y1, x2, y2 rather than x, y, width, height: each third number above the first."""
    return len(boxes) >= FEWEST and bool((boxes[:, 2:] > boxes[:, :2]).all())


def usable(columns: Columns, dataset: str) -> Bool:
    """Boxes that a task of this data set uses, bool `[M]`."""
    mask: Bool = (columns.flags & np.uint16(int(dropped(dataset)))) == 0
    return mask


def report(columns: Columns, dataset: str, examples: int = 3) -> list[dict[str, Any]]:
    """The faults that were found: what, how many boxes, the lowest annotation ids as examples, how they are handled."""
    found = []
    for flag, meaning in MEANING.items():
        rows = np.flatnonzero(columns.flags & np.uint16(int(flag)))
        if len(rows):
            found.append(
                {
                    "what": meaning,
                    "boxes": len(rows),
                    "annotation_ids": np.sort(columns.box_ids[rows])[:examples].tolist(),
                    "handled": "dropped" if flag in dropped(dataset) else "kept",
                }
            )
    repeated = _repeated_ids(columns.box_ids)
    if len(repeated):
        found.append(
            {
                "what": "annotation id missing or used more than once",
                "boxes": len(repeated),
                "annotation_ids": np.unique(repeated)[:examples].tolist(),
                "handled": "numbered anew where they are in D_l, else kept",
            }
        )
    return found


def _repeated_ids(box_ids: Int64) -> Int64:
    """Ids that are -1 or not the first of their value, in any order."""
    if (box_ids[1:] > box_ids[:-1]).all() and (box_ids[:1] >= 0).all():
        return box_ids[:0]  # ascending, as in every official file: no need to sort
    ordered = np.sort(box_ids)
    again = np.concatenate([[False], ordered[1:] == ordered[:-1]])
    repeated: Int64 = ordered[again | (ordered < 0)]
    return repeated
