"""How many images and boxes of each class there are before and after the draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.splits.columns import Category

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassCounts:
    """Images and boxes per class, int64 `[C]` each. An image counts for a class that it holds, if only as a crowd.

    Attributes:
        train_images, train_boxes: in all training images, as the data has them.
        labeled_images, labeled_boxes: in D_l, as training sees it.
        unlabeled_images, unlabeled_boxes: in D_u, hidden from training: for people, tables and plots only.
    """

    train_images: Counts
    train_boxes: Counts
    labeled_images: Counts
    labeled_boxes: Counts
    unlabeled_images: Counts
    unlabeled_boxes: Counts


def split_statistics(
    categories: Sequence[Category],
    counts: ClassCounts,
    groups: Mapping[str, Sequence[str]],
    health: Sequence[Mapping[str, Any]],
    unmet_floors: Mapping[str, int],
) -> dict[str, Any]:
    """The content of `statistics.json`.

    Args:
        categories: the classes in label order.
        counts: images and boxes per class.
        groups: class names by group.
        health: what `health.report` found.
        unmet_floors: classes that have fewer boxes than the floor in all images, with the number that they have.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    classes = [
        {
            "id": category.id,
            "name": category.name,
            "group": group_of[category.name],
            "official_frequency": category.frequency,
            "train_images": int(counts.train_images[label]),
            "train_boxes": int(counts.train_boxes[label]),
            "labeled_images": int(counts.labeled_images[label]),
            "labeled_boxes": int(counts.labeled_boxes[label]),
            "unlabeled_images": int(counts.unlabeled_images[label]),
            "unlabeled_boxes": int(counts.unlabeled_boxes[label]),
        }
        for label, category in enumerate(categories)
    ]
    return {
        "classes": classes,
        "groups": {name: _group_row([row for row in classes if row["group"] == name]) for name in groups},
        "imbalance_ratio": {
            "train": _imbalance(counts.train_images),
            "labeled": _imbalance(counts.labeled_images),
            "unlabeled": _imbalance(counts.unlabeled_images),
        },
        "health": list(health),
        "unmet_floors": dict(unmet_floors),
    }


def _group_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    columns = [f"{part}_{unit}" for part in ("train", "labeled", "unlabeled") for unit in ("images", "boxes")]
    return {"classes": len(rows), **{column: sum(row[column] for row in rows) for column in columns}}


def _imbalance(images: Counts) -> float | None:
    """Images of the most frequent class over images of the least frequent one that has any."""
    present = images[images > 0]
    return float(present.max() / present.min()) if len(present) else None
