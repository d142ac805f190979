"""Validation images of a run, by their file names on disk."""

from pathlib import Path
from typing import Any

from cissod_bench.coco.names import clean_name
from cissod_bench.coco.objects365 import unpacked_names
from cissod_bench.coco.reader import read_columns
from cissod_bench.evaluation.inputs import ground_truth
from cissod_bench.splits.images import filled_sizes
from cissod_bench.tasks.registry import Task


def read_validation(task: Task, annotations: Path, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the validation images, in COCO's form and relative to the task's image folder, and the class names.

    LVIS names images by URL, and Objects365's archives unpack to other folders than its annotations name. Sizes that
    the annotations lack are read from the images in `folder`.

    Raises:
        UserError: not an annotation file in COCO format, or one that evaluation would refuse.
    """
    columns = read_columns(annotations, file_names="coco_url" if task.dataset == "lvis" else "file_name")
    ground_truth(columns, annotations, lvis=task.dataset == "lvis")
    columns = filled_sizes(columns, folder, annotations)
    names = columns.file_names.tolist()
    if task.dataset == "objects365":
        names = unpacked_names(names)
    images = [
        {"id": int(image), "file_name": name, "width": int(width), "height": int(height)}
        for image, name, width, height in zip(columns.image_ids, names, columns.widths, columns.heights, strict=True)
    ]
    return images, [clean_name(category.name) for category in columns.categories]
