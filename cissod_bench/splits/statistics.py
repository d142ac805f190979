"""The number of images and boxes of each class and group in every part of a split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cissod_bench.coco.columns import Category
from cissod_bench.splits.select import Counts, Pairs

GROUP_TITLES = {"maj": "majority", "min": "minority", "f": "frequent", "c": "common", "r": "rare"}
GROUP_ORDER = tuple(GROUP_TITLES)
"""The order in which groups are shown; in files they are sorted by name."""


def split_statistics(
    categories: Sequence[Category],
    parts: Mapping[str, Sequence[Pairs]],
    groups: Mapping[str, Sequence[str]],
    faults: Sequence[Mapping[str, Any]],
    unmet_floors: Mapping[str, int],
) -> dict[str, Any]:
    """The content of `statistics.json`.

    An image counts for every class that it holds, even if only as a crowd, and once for each group of these classes.
    Crowds do not count as boxes.

    Args:
        categories: the classes in label order.
        parts: what is counted, as pairs of image and class of each data set in it: `train` (all training images as the
            data has them; for `coco-o365` those of Objects365), `labeled` (D_l as training sees it), `unlabeled` (D_u,
            hidden from training: for people, tables and plots only) and, where there is one, `validation` (held out).
        groups: class names by group.
        faults: what `checks.report` found.
        unmet_floors: classes that have fewer boxes than the floor in all images, with the number that they have.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    numbers = {group: number for number, group in enumerate(groups)}
    group_of_label = np.array([numbers[group_of[category.name]] for category in categories], np.int32)
    images = _totals(parts, Pairs.images_per_class)
    boxes = _totals(parts, Pairs.boxes_per_class)
    group_images = _totals(parts, lambda pairs: pairs.images_per_group(group_of_label, len(groups)))
    return {
        "classes": [
            {
                "id": category.id,
                "name": category.name,
                "group": group_of[category.name],
                "official_frequency": category.frequency,
                **{f"{part}_images": int(images[part][label]) for part in parts},
                **{f"{part}_boxes": int(boxes[part][label]) for part in parts},
            }
            for label, category in enumerate(categories)
        ],
        "groups": {
            group: {
                "classes": len(groups[group]),
                **{f"{part}_images": int(group_images[part][number]) for part in parts},
                **{f"{part}_boxes": int(boxes[part][group_of_label == number].sum()) for part in parts},
            }
            for group, number in numbers.items()
        },
        "imbalance_ratio": {part: _imbalance(images[part]) for part in parts},
        "health": list(faults),
        "unmet_floors": dict(unmet_floors),
    }


def _totals(parts: Mapping[str, Sequence[Pairs]], count: Callable[[Pairs], Counts]) -> dict[str, Counts]:
    """A count for every part, summed over its data sets."""
    return {part: np.sum([count(pairs) for pairs in counted], axis=0) for part, counted in parts.items()}


def _imbalance(images: Counts) -> float | None:
    """Images of the most frequent class over images of the least frequent class that has any."""
    present = images[images > 0]
    return float(present.max() / present.min()) if len(present) else None


def remarks(statistics: Mapping[str, Any]) -> list[str]:
    """What users of the split should know, as phrases: faults of the annotations, classes that are too rare."""
    found = []
    for entry in statistics["health"]:
        where = " of COCO" if entry.get("data") == "coco" else ""
        examples = ", ".join(map(str, entry["annotation_ids"]))
        found.append(f"{entry['what']}: {entry['boxes']:,}{where} {entry['handled']}, such as annotation {examples}")
    unmet = [f"{name} ({boxes})" for name, boxes in sorted(statistics["unmet_floors"].items())]
    if unmet:
        found.append(f"all boxes labelled, yet fewer than the floor: {_listed(unmet, 'classes')}")
    none = [row["name"] for row in statistics["classes"] if not row["labeled_boxes"]]
    if none:
        found.append(f"no labelled box: {_listed(none, 'classes')}")
    return found


def _listed(names: Sequence[str], kind: str, most: int = 5) -> str:
    return f"{len(names)} {kind}: {', '.join(names[:most])}{', ...' if len(names) > most else ''}"
