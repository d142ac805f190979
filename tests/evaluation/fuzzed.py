"""Random data sets for comparing evaluators."""

from typing import Any

import numpy as np


def random_dataset(
    seed: int, *, images: int = 12, classes: int = 7, lvis: bool = False, detected: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO data set and detections with all that can go wrong between evaluators.

    Scores from ten values only (ties), crowd regions, images and classes without objects or detections, ids with gaps
    and out of order, all object sizes, zero-size boxes, more detections per image than count.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(np.arange(1, 10 * images))[:images].tolist()
    class_ids = rng.permutation(np.arange(1, 5 * classes))[:classes].tolist()
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    empty_class = class_ids[0]
    for image in image_ids[1:]:  # the first image is empty
        for _ in range(int(rng.integers(0, 9))):
            box = [*rng.uniform(0, 200, 2).round(2), *(rng.choice([0, 12, 40, 70, 130]) * rng.uniform(0.8, 1.2, 2))]
            box = [float(value) for value in box]
            kind = int(rng.choice(class_ids[1:]))
            crowd = 0 if lvis else int(rng.random() < 0.15)
            area = box[2] * box[3] * (float(rng.uniform(0.4, 1.0)) if rng.random() < 0.5 else 1.0)
            annotations.append(
                {"id": len(annotations), "image_id": image, "category_id": kind, "bbox": box, "area": area,
                 "iscrowd": crowd}
            )  # fmt: skip
            for _ in range(int(rng.integers(0, 4))):
                moved = [value + float(rng.normal(0, 3)) for value in box[:2]] + [abs(v) for v in box[2:]]
                shown = kind if rng.random() < 0.8 else int(rng.choice(class_ids))
                found.append({"image_id": image, "category_id": shown, "bbox": moved})
    for _ in range(images * 4):
        box = [float(value) for value in rng.uniform(1, 150, 4)]
        found.append({"image_id": int(rng.choice(image_ids)), "category_id": int(rng.choice(class_ids)), "bbox": box})
    for entry in found:
        entry["score"] = float(rng.integers(0, 10)) / 10
    rng.shuffle(found)  # type: ignore[arg-type]
    records = []
    for image in image_ids:
        record: dict[str, Any] = {"id": image, "width": 400, "height": 400, "file_name": f"{image}.jpg"}
        if lvis:
            present = {a["category_id"] for a in annotations if a["image_id"] == image}
            absent = [kind for kind in class_ids if kind not in present]
            record["neg_category_ids"] = [int(k) for k in rng.permutation(absent)[: len(absent) // 2]]
            record["not_exhaustive_category_ids"] = [k for k in sorted(present) if rng.random() < 0.3]
        records.append(record)
    dataset = {
        "images": records,
        "categories": [{"id": k, "name": f"class {k}{' (empty)' if k == empty_class else ''}"} for k in class_ids],
        "annotations": annotations,
    }
    return dataset, found if detected else []
