"""The annotation files of a task as the images to draw from, with the quirks of each data set mended."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cissod_bench.coco import objects365
from cissod_bench.coco.checks import Flag
from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import Source
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.splits.plan import Pools
from cissod_bench.tasks.registry import Task

Read = Callable[[Path], tuple[Columns, Source]]

COCO_ID_OFFSET = 1_000_000_000
"""Added to COCO's image ids where they stand beside those of Objects365, which run over the same numbers."""

_O365_FOLDER = "objects365/train/"
_COCO_FOLDER = "coco/train2017/"


def read_pools(task: Task, train: Path, majority: Path | None, read: Read) -> tuple[Pools, list[Source]]:
    """Read what a task draws from.

    Args:
        task: the task.
        train: its training annotations.
        majority: annotations that D_m comes from, where they are another data set.
        read: reads one file; a parameter so that a cache can stand before the reader.

    Raises:
        UserError: a file cannot be used, or is not of the data set that the task needs.
    """
    columns, source = read(train)
    if task.dataset != "objects365":
        return Pools(columns, np.zeros(columns.num_images, np.bool_)), [source]
    if majority is None:
        raise UserError(f"Task {task.name} needs the COCO annotations too: give them with --majority-annotations.")
    objects365.check_classes(columns.categories, str(train))
    coco, coco_source = read(majority)
    located = columns.file_names.last_parts(2, _O365_FOLDER)  # as `objects365.unpacked_names`
    absent = np.zeros(columns.num_images, np.bool_)
    for name in objects365.ABSENT_FILES:
        absent[located.find(_O365_FOLDER + name)] = True
    pools = Pools(replace(columns, file_names=located), absent, map_coco(coco, columns, str(majority)))
    return pools, [source, coco_source]


def map_coco(coco: Columns, target: Columns, file: str) -> Columns:
    """COCO's images with the classes of Objects365; boxes of a class without counterpart are left out.

    Raises:
        UserError: the file has other classes than COCO.
    """
    label_of = {category.id: label for label, category in enumerate(target.categories)}
    names = [category.name for category in coco.categories]
    for name in objects365.FROM_COCO:
        if name not in names:
            raise UserError(f"{file} is not COCO: {unknown_name('class', name, names)}")
    labels = np.array([label_of.get(objects365.FROM_COCO.get(name, -1), -1) for name in names], np.int16)
    box_label = np.where(coco.box_label >= 0, labels[coco.box_label], np.int16(-1))
    unmapped = np.where((coco.box_label >= 0) & (box_label < 0), np.uint8(int(Flag.UNMAPPED)), np.uint8(0))
    return replace(
        coco,
        image_ids=coco.image_ids + COCO_ID_OFFSET,
        file_names=coco.file_names.with_prefix(_COCO_FOLDER),
        categories=target.categories,
        box_label=box_label,
        health=coco.health | unmapped,
    )
