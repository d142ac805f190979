"""A split for YOLO's trainers, which find the labels of an image by its path.

::

    data.yaml      class names, and the list to train on
    labeled.txt    paths of D_l, ./images/NAME
    unlabeled.txt  paths of D_u, which has no labels
    images         link to the folder of the training images
    labels/        for each image of D_l a line a box: class, and centre, width and height as fractions of the image

The trainers replace the last `/images/` of a path by `/labels/`. So the lists lead to the labels here, never to labels
that lie beside the images themselves. YOLO has no ignored regions: crowd boxes are lost, and boxes are clipped to their
image. The split can be imported again all the same: its labels come from the annotations.
"""

from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import write_text
from cissod_bench.splits.folder import Split

LISTS = ("labeled.txt", "unlabeled.txt")


def write_yolo(split: Split, folder: Path, images: Path | None) -> list[str]:
    """Write lists, labels and `data.yaml` of a split.

    Args:
        split: the split.
        folder: an existing folder.
        images: folder of the training images, which is linked; None to leave that to the user.

    Returns:
        What to know about the export, as sentences.

    Raises:
        UserError: no such folder, an image without a size, or names that YOLO's trainers would take for others.
    """
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder. Give the folder of the training images.")
    labeled, unlabeled = read_columns(split.labeled_file), read_columns(split.unlabeled_file)
    for name, columns in zip(LISTS, (labeled, unlabeled), strict=True):
        names = columns.file_names.tolist()
        for image in names:
            _check_name(split, image)
        write_text(folder / name, "".join(f"./images/{image}\n" for image in names))
    for image, lines in label_lines(labeled).items():
        path = folder / "labels" / PurePosixPath(image).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise UserError(f"{split.folder}: two images share the label file of {image}. Rename one of them.")
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    classes = "".join(f"  {label}: {_quoted(name)}\n" for label, name in enumerate(split.class_names))
    write_text(
        folder / "data.yaml",
        "# The labels are those of D_l. Add `val:` with a list of the task's validation images.\n"
        f"train: {LISTS[0]}\nnames:\n{classes}",
    )
    notes = ["YOLO has no ignored regions: crowd boxes are left out, and boxes are clipped to their image."]
    if images is None:
        return [*notes, "Link the folder of the training images as `images` in this folder."]
    (folder / "images").symlink_to(images.resolve(), target_is_directory=True)
    return notes


def label_lines(columns: Columns) -> dict[str, list[str]]:
    """The lines of each image's label file, by name of the image; an image without a box has none.

    Raises:
        UserError: an image whose size the annotations do not tell.
    """
    names = columns.file_names.tolist()
    lines: dict[str, list[str]] = {name: [] for name in names}
    sizes = np.stack([columns.widths, columns.heights], 1).astype(np.float64)
    if (sizes <= 0).any():
        name = names[int(np.argmax((sizes <= 0).any(1)))]
        raise UserError(f"{name}: the annotations lack the size of the image, which YOLO's labels need.")
    used = np.flatnonzero(~columns.crowd)
    size = sizes[columns.box_image[used]]
    low = np.clip(columns.boxes[used, :2] / size, 0, 1)
    high = np.clip((columns.boxes[used, :2] + columns.boxes[used, 2:]) / size, 0, 1)
    inside = ((high - low) > 0).all(1)
    fractions = np.hstack([(low + high) / 2, high - low])[inside].tolist()
    rows = used[inside]
    for image, label, box in zip(columns.box_image[rows], columns.box_label[rows], fractions, strict=True):
        lines[names[image]].append(" ".join([str(label), *(f"{value:.10g}" for value in box)]))
    return lines


def _check_name(split: Split, name: str) -> None:
    """Refuse a name that would lead a trainer, or this export, to files outside of the export."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{split.folder}: {name} does not lie in the folder of the images. Export another form.")
    if "images" in path.parts[:-1]:
        raise UserError(
            f"{split.folder}: {name} lies in a folder `images` of its own, where YOLO's trainers would look for labels "
            "beside the image. Rename that folder, or export another form."
        )


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
