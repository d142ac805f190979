"""The sources of a split: the annotation files of a task, found, read and corrected for the quirks of each data set."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from cissod_bench.coco import checks, objects365
from cissod_bench.coco.checks import FEWEST, Flag, looks_like_corners
from cissod_bench.coco.columns import Bool, Columns
from cissod_bench.coco.names import clean_name
from cissod_bench.coco.reader import Read, SourceFile
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.splits.images import filled_sizes, refuse_repeated_files
from cissod_bench.splits.unlabeled_folder import UnlabeledFolder
from cissod_bench.tasks.records import Task

COCO_ID_OFFSET = 1_000_000_000
"""Added to COCO's image ids where they occur together with those of Objects365, which use the same numbers."""

CROSSING = 0.2
"""Part of the boxes over the border of their image from which on they may be said to have another form."""

_O365_FOLDER = "objects365/train/"
_COCO_FOLDER = "coco/train2017/"


@dataclass(frozen=True)
class Sources:
    """What the images of a split are selected from.

    Attributes:
        train: the training images: D_s and D_u come from them, and D_m as well unless `majority` is given.
        majority: images of another data set that D_m comes from (`coco-o365`), else None.
        folder: images without annotations that join D_u (`unlabeled_folder.py`), else None.
        absent: training images that the annotations list but the archives lack, bool `[N]`.
    """

    train: Columns
    absent: Bool
    majority: Columns | None = None
    folder: UnlabeledFolder | None = None


def annotation_file(task: Task, given: Path | None, data_root: Path) -> Path:
    """The training annotations of a task: the given file, else the one under the data root, also as .gz or .xz.

    Raises:
        UserError: there is no such file; the message says where it should be.
    """
    if given is not None:
        return given
    if task.files is None:
        raise UserError(f"Task {task.name} does not say where its data is. Give the file with --annotations.")
    return _found(task, data_root / task.files.train_annotations, "--annotations")


def majority_file(task: Task, given: Path | None, data_root: Path) -> Path | None:
    """The annotations that D_m comes from where that is another data set, else None.

    Raises:
        UserError: the task needs them and they do not exist, or they are given although the task needs none.
    """
    needed = task.files is not None and task.files.majority_annotations
    if given is not None:
        if not needed:
            raise UserError(f"Task {task.name} takes all its images from one file: leave out --majority-annotations.")
        return given
    return _found(task, data_root / needed, "--majority-annotations") if needed else None


def _found(task: Task, path: Path, option: str) -> Path:
    for candidate in (path, path.with_name(path.name + ".gz"), path.with_name(path.name + ".xz")):
        if candidate.is_file():
            return candidate
    remedy = "Put the data under the data root (--data-root or CISSOD_DATA_ROOT)"
    if task.dataset == "custom":
        remedy = "Put it there, correct [data] in the task file"
    there = "is a folder and not a file" if path.is_dir() else "does not exist"
    raise UserError(f"Task {task.name} needs {path}, which {there}. {remedy}, or give the file with {option}.")


def read_sources(
    task: Task, train: Path, majority: Path | None, read: Read, *, images: Path | None = None
) -> tuple[Sources, list[SourceFile]]:
    """Read what the images of a task are selected from.

    Args:
        task: the task.
        train: its training annotations.
        majority: annotations that D_m comes from, where that is another data set.
        read: reads one file: `read_coco`, or a cache in front of it.
        images: folder of the training images, from which sizes are read that the annotations lack.

    Raises:
        UserError: a file cannot be used, or is not of the data set that the task needs.
    """
    columns, file = read(train)
    columns = filled_sizes(columns, images, train)
    if task.dataset == "custom":
        refuse_repeated_files(columns, train)
        columns = with_clean_names(columns)
    refuse_useless(columns, task.dataset, train)
    if task.dataset != "objects365":
        return Sources(columns, np.zeros(columns.num_images, np.bool_)), [file]
    if majority is None:
        raise UserError(f"Task {task.name} needs the COCO annotations too: give them with --majority-annotations.")
    objects365.check_classes(columns.categories, str(train))
    coco, coco_file = read(majority)
    located = columns.file_names.last_parts(2, _O365_FOLDER)  # as `objects365.unpacked_names`
    absent = np.zeros(columns.num_images, np.bool_)
    for name in objects365.ABSENT_FILES:
        absent[located.find(_O365_FOLDER + name)] = True
    sources = Sources(replace(columns, file_names=located), absent, map_coco(coco, columns, str(majority)))
    return sources, [file, coco_file]


def with_clean_names(columns: Columns) -> Columns:
    """Columns with the names of their classes as they are compared (`names.clean_name`)."""
    categories = tuple(
        msgspec.structs.replace(category, name=clean_name(category.name)) for category in columns.categories
    )
    return replace(columns, categories=categories)


def refuse_useless(columns: Columns, dataset: str, file: Path) -> None:
    """Refuse annotations of which no box can be learned from, with what is wrong with them.

    Raises:
        UserError: every box is dropped, or is a crowd region.
    """
    if not columns.num_boxes:
        raise UserError(f"{file} has no annotations, so there is nothing to learn from. Give the annotated file.")
    usable = checks.usable(columns, dataset)
    if not usable.any():
        faults = [entry for entry in checks.report(columns, dataset) if entry["handled"] == "dropped"]
        reasons = "; ".join(
            f"{entry['what']}: {entry['boxes']}, such as annotation {entry['annotation_ids'][0]}" for entry in faults
        )
        boxes = columns.boxes
        hint = "Each annotation needs `bbox`: x, y, width and height in pixels (not a polygon alone)."
        if np.isfinite(boxes).all() and boxes.max() <= 1:
            hint = "The coordinates look normalised to 0..1: multiply them by the width and height of the image."
        elif (columns.flags & np.uint16(int(Flag.UNKNOWN_IMAGE | Flag.UNKNOWN_CLASS))).all():
            hint = "Ids of annotations must be those of the file's images and classes."
        raise UserError(f"{file}: none of the {columns.num_boxes} boxes can be used ({reasons}). {hint}")
    crossing = (columns.flags[usable] & np.uint16(int(Flag.CROSSES_BORDER))) != 0
    if len(crossing) >= FEWEST and crossing.mean() > CROSSING and looks_like_corners(columns.boxes):
        raise UserError(
            f"{file}: {int(crossing.sum()):,} of {len(crossing):,} boxes reach over the border of their image, and the "
            "third and fourth number of every box are above the first and second: they look like x1, y1, x2, y2. COCO "
            "has x, y, width and height. Convert them."
        )
    if columns.crowd[usable].all():
        raise UserError(
            f"{file}: all {int(usable.sum())} boxes are crowd regions (`iscrowd` 1), which are ignored in training, so "
            "nothing can be learned from them. Set `iscrowd` to 0 where an annotation is one object; some tools export "
            "every brush mask as a crowd."
        )


def map_coco(coco: Columns, target: Columns, file: str) -> Columns:
    """COCO's images with the classes of Objects365; boxes of a class without a counterpart are flagged.

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
    unmapped = np.where((coco.box_label >= 0) & (box_label < 0), np.uint16(int(Flag.UNMAPPED)), np.uint16(0))
    return replace(
        coco,
        image_ids=coco.image_ids + COCO_ID_OFFSET,
        file_names=coco.file_names.with_prefix(_COCO_FOLDER),
        categories=target.categories,
        box_label=box_label,
        flags=coco.flags | unmapped,
    )
