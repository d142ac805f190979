"""The sizes of the official annotation files, by which a sample or another release of the data is recognised."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_COCO = MappingProxyType({
    "train_images": 118_287,
    "train_annotations": 860_001,
    "validation_images": 5_000,
    "validation_annotations": 36_781,
})  # fmt: skip

SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType({
    "coco-split1": _COCO,
    "coco-split2": _COCO,
    "coco-o365": MappingProxyType({"validation_images": 80_000}),
    "lvis": MappingProxyType({
        "train_images": 100_170,
        "train_annotations": 1_270_141,
        "validation_images": 19_809,
        "validation_annotations": 244_707,
    }),
})  # fmt: skip
"""Task -> images and annotations of its official files: COCO 2017, Objects365 v2, LVIS v1. Crowds count."""

CLASSES: Mapping[str, int] = MappingProxyType({"coco-split1": 80, "coco-split2": 80, "coco-o365": 365, "lvis": 1203})
"""Task -> classes of its official files."""


def unofficial(task: str, sizes: Mapping[str, int]) -> list[str]:
    """How data differs from the official files of a task, as "80 train images instead of 118,287".

    Args:
        task: its name; tasks without official files have no differences.
        sizes: what is known of the data, by the names in `SIZES`.
    """
    return [
        f"{sizes[name]:,} {name.replace('_', ' ')} instead of {official:,}"
        for name, official in SIZES.get(task, {}).items()
        if name in sizes and sizes[name] != official
    ]


def remark(task: str, sizes: Mapping[str, int]) -> str | None:
    """One sentence for somebody who uses other data than the official files; None where the data is theirs."""
    found = unofficial(task, sizes)
    return f"Not the official data of {task}: {', '.join(found)}; no number of the paper compares." if found else None


def train_sizes(source: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the training data by the names in `SIZES`.

    Args:
        source: `Split.source`.
    """
    return {"train_images": source["images"], "train_annotations": source["boxes"]}
