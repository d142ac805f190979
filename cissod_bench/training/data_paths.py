"""Where a run finds its data, and whether what lies there fits its task."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.coco.names import clean_name
from cissod_bench.errors import Remark, UserError, unknown_name
from cissod_bench.io import decode_json
from cissod_bench.splits.folder import MANIFEST, Split, load_split
from cissod_bench.splits.images import check_sizes, refuse_missing, refuse_shared
from cissod_bench.tasks.registry import Task
from cissod_bench.training.spec import RunSpec, making_command, split_folder, validation_file


@dataclass(frozen=True)
class DataPaths:
    """Where a run finds its images and the annotations that it is evaluated on.

    Attributes:
        train_images: folder of the training images.
        val_annotations: annotations of the validation images.
        val_images: their folder.
        hidden_annotations: all training annotations, for the diagnosis of pseudo labels and `full-labels` only; None
            where they are not given.
    """

    train_images: Path
    val_annotations: Path
    val_images: Path
    hidden_annotations: Path | None = None


def read_split(spec: RunSpec, task: Task) -> Split:
    """Load and verify the split of a run, and check that it fits the task.

    Raises:
        UserError: no split, a damaged one, or one of another task or protocol version.
    """
    folder = split_folder(spec, task)
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds no split. Make one with `{making_command(spec)}`.")
    split = load_split(folder)
    if split.task != task.name:
        raise UserError(f"{folder}: a split of task {split.task!r}, not of {task.name!r}. Give the right --split.")
    if split.protocol != task.version:
        raise UserError(
            f"{folder}: made by protocol version {split.protocol} of task {task.name!r}, which is now at version "
            f"{task.version}. Make the split again with `{making_command(spec, split.seed)} --force`."
        )
    if len(split.unlabeled_ids) == 0:
        raise UserError(f"{folder}: the split has no unlabelled image. Label a smaller fraction.")
    check_selection(split, task)
    return split


def check_selection(split: Split, task: Task) -> None:
    """Check the options of a split against the task, whose file may have been edited since.

    Raises:
        UserError: an option of the selection, or the minority classes, differ.
    """
    wanted = asdict(task.selection)
    if split.options.get("label_budget"):  # `make-splits --fraction`
        del wanted["fraction"], wanted["count"]
    for name in () if split.options.get("imported") else wanted:
        if name in split.options and split.options[name] != wanted[name]:
            raise UserError(
                f"{split.folder}: selected with {name} = {split.options[name]}, but task {task.name!r} has "
                f"{wanted[name]}. Make the split again, or raise the task's version."
            )
    minority = [clean_name(name) for name in split.groups.get("min", ())]
    for name in map(clean_name, task.minority):
        if name not in minority:
            raise UserError(f"{split.folder}: {unknown_name('minority class', name, minority)}")


def find_data(task: Task, split: Split, data_root: Path, hidden: Path | None = None) -> DataPaths:
    """Images and annotations of a task.

    Args:
        task, split: what is trained on.
        data_root: folder that the task's paths are relative to.
        hidden: full training annotations, if given; the embedded tasks have them next to their images.

    Raises:
        UserError: one of them does not exist.
    """
    annotations = validation_file(task, split.folder, data_root, held_out=split.validation_file is not None)
    if task.files is None:
        data = split.folder / "data"
        paths = DataPaths(data / "train", annotations, data / "val", hidden or data / "train.json")
    else:
        paths = DataPaths(
            data_root / task.files.train_images,
            annotations,
            data_root / (task.files.train_images if split.validation_file else task.files.val_images),
            hidden,
        )
    for what, path in (
        ("training images", paths.train_images),
        ("validation annotations", paths.val_annotations),
        ("validation images", paths.val_images),
    ):
        if not path.exists():
            raise UserError(
                f"{path}: the {what} of task {task.name!r} are not there. Put them there, or give the folder that "
                "holds the data as --data-root; `cissod-bench doctor` lists what every task needs."
            )
    return paths


def check_classes(split: Split, val_annotations: Path, known: Sequence[str]) -> None:
    """Check that the validation annotations know the split's classes, by name.

    Raises:
        UserError: a class that the validation annotations lack.
    """
    for name in split.class_names:
        if clean_name(name) not in known:
            raise UserError(f"{val_annotations}: {unknown_name('class', name, known)} The split {split.folder} has it.")
    own = set(map(clean_name, split.class_names))
    more = [name for name in known if name not in own]
    if more:
        warnings.warn(
            f"{val_annotations}: {', '.join(more[:5])}{', ...' if len(more) > 5 else ''} "
            f"({len(more)} of {len(known)} classes) are not classes of the task and are left out of its scores.",
            Remark,
            stacklevel=2,
        )


def check_images(
    split: Split,
    paths: DataPaths,
    validation: list[dict[str, Any]],
    scales: Sequence[tuple[int, int]],
    *,
    unlabeled: bool = True,
) -> None:
    """Look for every image on disk before training starts, at the sizes of a sample, and for images in two roles.

    Args:
        split: what is trained on.
        paths: where the images are.
        validation: the validation images.
        scales: sizes to which images are resized.
        unlabeled: whether the unlabelled images are trained on.

    Raises:
        UserError: images that do not exist, have another size than the annotations say, become less than a pixel high
            or wide, or are both trained and validated on: how many, and the first of them.
    """
    files = [split.labeled_file, *([split.unlabeled_file] if unlabeled else [])]
    trained = [(file, paths.train_images, _images(file)) for file in files]
    held_out = [_NamedImage(image["file_name"], image["width"], image["height"]) for image in validation]
    for annotations, folder, images in (*trained, (paths.val_annotations, paths.val_images, held_out)):
        names = [image.file_name for image in images]
        refuse_missing(folder, names, str(annotations))
        check_sizes(folder, names, [(image.width, image.height) for image in images], str(annotations))
        for image in images:
            _check_shape(image, folder, scales)
    names = [image.file_name for _, _, images in trained for image in images]
    held_out_names = [image.file_name for image in held_out]
    refuse_shared(paths.train_images, names, paths.val_images, held_out_names, str(paths.val_annotations))


def _check_shape(image: "_NamedImage", folder: Path, scales: Sequence[tuple[int, int]]) -> None:
    """Refuse an image that has no pixel left along one side when it is resized with its proportions kept."""
    shortest, longest = sorted((image.width, image.height))
    if shortest <= 0:
        return
    for scale in scales:
        factor = min(max(scale) / longest, min(scale) / shortest)
        if shortest * factor < 0.5:
            raise UserError(
                f"{folder / image.file_name}: {image.width} x {image.height} pixels; resized to at most "
                f"{max(scale)} pixels, it would be less than one pixel across. Cut it up, or leave it out."
            )


class _NamedImage(msgspec.Struct):
    file_name: str
    width: int = 0
    height: int = 0


class _ImageList(msgspec.Struct):
    images: list[_NamedImage]


def _images(annotations: Path) -> list[_NamedImage]:
    return decode_json(annotations.read_bytes(), _ImageList, name=annotations).images
