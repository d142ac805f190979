"""What a split holds, and how two splits differ."""

from collections import Counter
from typing import Any

import numpy as np

from cissod_bench.coco.reader import read_columns
from cissod_bench.splits.folder import Split, statistics_of


def co_occurrence(split: Split, most: int = 3) -> dict[str, list[tuple[str, float]]]:
    """For each class of the rarest group: the classes of other groups that share most of its labelled images.

    Returns:
        Up to `most` pairs of class name and share of the labelled images of the rare class, by rare class.
    """
    rare = next((members for name in ("min", "r") if (members := split.groups.get(name))), ())
    labeled = read_columns(split.labeled_file)
    classes: dict[int, set[str]] = {}
    for image, label in zip(labeled.box_image.tolist(), labeled.box_label.tolist(), strict=True):
        classes.setdefault(image, set()).add(labeled.categories[label].name)
    found = {}
    for name in rare:
        holding = [others for others in classes.values() if name in others]
        companions = Counter(other for others in holding for other in others if other not in rare)
        # Ties are broken by name, so that the table is always the same.
        ranked = sorted(companions.items(), key=lambda item: (-item[1], item[0]))[:most]
        found[name] = [(other, count / len(holding)) for other, count in ranked]
    return found


def difference(first: Split, second: Split) -> dict[str, Any]:
    """How two splits differ.

    Returns:
        `same`, `fields` (entries of the manifest that differ: both values), `images` (per part: only in the first, in
        both, only in the second), `groups` (classes whose group differs) and `labeled_images` (per class that differs:
        labelled images in both).
    """
    fields = {
        name: [getattr(first, name), getattr(second, name)]
        for name in ("task", "protocol", "seed")
        if getattr(first, name) != getattr(second, name)
    }
    for kind in ("options", "source"):
        one, other = getattr(first, kind), getattr(second, kind)
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                fields[name if kind == "options" else f"source {name}"] = [one.get(name), other.get(name)]
    parts = {}
    for part in ("labeled_ids", "majority_ids", "minority_ids", "unlabeled_ids"):
        ids, others = getattr(first, part), getattr(second, part)
        both = len(np.intersect1d(ids, others))
        parts[part.removesuffix("_ids")] = {"first": len(ids) - both, "both": both, "second": len(others) - both}
    groups = [{name: group for group, names in split.groups.items() for name in names} for split in (first, second)]
    images = [
        {row["name"]: row["labeled_images"] for row in statistics_of(split.folder)["classes"]}
        for split in (first, second)
    ]
    names_of_both = sorted({*groups[0], *groups[1]})
    return {
        "same": first.digest == second.digest,
        "fields": fields,
        "images": parts,
        "groups": _differing(groups, names_of_both),
        "labeled_images": _differing(images, names_of_both),
    }


def _differing(values: list[dict[str, Any]], names: list[str]) -> dict[str, list[Any]]:
    return {
        name: [values[0].get(name), values[1].get(name)] for name in names if values[0].get(name) != values[1].get(name)
    }
