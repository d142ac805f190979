"""A digest of annotations that does not depend on the order in which a file lists them."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Bool, Category, Float64, Int32, Int64, Strings, UInt64
from cissod_bench.io import canonical_json

Sums = tuple[int, int]

_LANES = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)


def _mix(value: UInt64) -> UInt64:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): a bijection in which every bit depends on every bit."""
    mixed = value >> np.uint64(30)
    mixed ^= value
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _bits(column: npt.NDArray[Any]) -> UInt64:
    if column.dtype == np.float64:
        # Both zeros, and all NaNs, count as one value.
        return np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)
    return column.astype(np.int64).view(np.uint64)


def box_hashes(image_ids: Int64, category_ids: Int32, boxes: Float64) -> UInt64:
    """One 64-bit hash a box over image, class and coordinates: equal for duplicates, uint64 `[M]`."""
    with np.errstate(over="ignore"):
        hashes = _mix(_bits(image_ids) + np.uint64(0x9E3779B97F4A7C15))
        for column in (category_ids, *boxes.T):
            hashes = _mix(hashes + _bits(column))
    return hashes


def box_sums(hashes: UInt64, box_ids: Int64, crowd: Bool, areas: Float64) -> Sums:
    """Two sums of mixed 64-bit hashes over everything that is known of the boxes, modulo 2^64.

    A sum does not depend on the order of its terms, so nothing as large as the boxes has to be sorted; and the sums of
    the parts of a file add up to those of the whole (`added`).
    """
    with np.errstate(over="ignore"):
        for column in (box_ids, crowd, areas):
            hashes = _mix(hashes + _bits(column))
        first, second = (int(_mix(hashes ^ np.uint64(key)).sum(dtype=np.uint64)) for key in _LANES)
    return first, second


def added(first: Sums, second: Sums) -> Sums:
    """Sums over the boxes of two parts together."""
    return (first[0] + second[0]) % 2**64, (first[1] + second[1]) % 2**64


def content_digest(
    image_ids: Int64,
    widths: Int32,
    heights: Int32,
    file_names: Strings,
    extras: Strings,
    categories: Sequence[Category],
    num_boxes: int,
    sums: Sums,
) -> str:
    """SHA-256 over the images (ascending by id), the classes, and the number and the sums of the boxes."""
    digest = hashlib.sha256()
    images: tuple[npt.NDArray[Any], ...] = (
        image_ids,
        widths,
        heights,
        file_names.ends,
        file_names.data,
        extras.ends,
        extras.data,
    )
    for column in images:
        digest.update(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
    digest.update(canonical_json([msgspec.to_builtins(category) for category in categories]).encode())
    digest.update(canonical_json([len(image_ids), num_boxes, *sums]).encode())
    return digest.hexdigest()
