"""Unlabelled images that lie in folders, without a JSON file: `[data] unlabeled_images` of a task file.

Every image found there joins D_u, in the order of its path relative to the training images, under ids above those of
the annotations. An image that is a training or validation image already, by its path or by its content, is left out.
"""

import glob
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cissod_bench.coco.columns import Columns, Strings
from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file
from cissod_bench.splits.images import image_path, shown_size
from cissod_bench.tasks.records import DataFiles, Task

MOST = 1_000_000
"""Files in the folders from which on they are refused; such data needs a list that does not change."""
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
THREADS = 16
"""Images whose headers are read at once: many wait for a network drive while one is decoded."""

Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class UnlabeledFolder:
    """The images of the folders.

    Attributes:
        columns: one row an image, no boxes; file names are relative to the folder of the training images.
        left_out: images that are training or validation images already.
        digest: SHA-256 of names, sizes in pixels and sizes in bytes.
    """

    columns: Columns
    left_out: int
    digest: str

    def facts(self) -> dict[str, Any]:
        """What a split says about them."""
        return {
            "folder_images": self.columns.num_images,
            "folder_left_out": self.left_out,
            "folder_first_id": int(self.columns.image_ids[0]),
            "folder_content": self.digest,
        }


def read_unlabeled(task: Task, train: Columns, progress: Progress | None = None) -> UnlabeledFolder | None:
    """Find the images in a task's folders of unlabelled images and read their sizes.

    Args:
        task: the task.
        train: its training annotations.
        progress: called with the number of images read so far and the total.

    Returns:
        The images; None for a task without such folders.

    Raises:
        UserError: a folder does not exist, has no image, holds training and validation images only, has unreadable
            images or too many files.
    """
    if task.files is None or not task.files.unlabeled_images:
        return None
    folder = task.files.train_images
    paths = sorted({path for place in task.files.unlabeled_images for path in images_in(place)})
    known = _known_images(task.files, train)
    new = [path for path in paths if path not in known]
    sizes = _sizes(new, progress)
    copies = _copies(new, [size for _, _, size in sizes], sorted(known))
    rows = [(os.path.relpath(path, folder), *size) for path, size in zip(new, sizes, strict=True) if path not in copies]
    if not rows:
        raise UserError(
            f"{_shown(task.files)}: all {len(paths):,} images there are training or validation images of the "
            "annotations. Give the folder of the unlabelled ones."
        )
    for name, *_ in rows:
        if not _is_text(name):
            raise UserError(f"{_shown(task.files)}: the file name {name!r} is not UTF-8. Rename the file.")
    rows.sort()
    lines = (f"{name}\0{width}\0{height}\0{size}\n".encode() for name, width, height, size in rows)
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    return UnlabeledFolder(_columns(rows, train), len(paths) - len(rows), digest)


def images_in(place: str) -> Iterator[str]:
    """Paths of the images that a folder holds at any depth, or that a pattern matches; hidden files do not count.

    Raises:
        UserError: nothing is there, or too much.
    """
    roots = [place]
    if glob.has_magic(place) and not Path(place).exists():
        roots = list(_limited(glob.iglob(place, recursive=True), place))  # noqa: PTH207  (takes absolute patterns)
    elif not Path(place).is_dir():
        raise UserError(f"[data] unlabeled_images: there is no folder {place}. Correct it in the task file.")
    found = False
    for path in _limited((path for root in roots for path in _walk(root)), place):
        if path.lower().endswith(SUFFIXES):
            found = True
            yield os.path.normpath(path)
    if not found:
        raise UserError(
            f"[data] unlabeled_images: {place} has no image ({', '.join(SUFFIXES)}). Correct it in the task file."
        )


def _walk(root: str) -> Iterator[str]:
    if not Path(root).is_dir():
        yield root
        return
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (f"{folder}/{name}" for name in files if not name.startswith("."))


def _limited(paths: Iterator[str], place: str) -> Iterator[str]:
    for number, path in enumerate(paths, 1):
        if number >= MOST:
            raise UserError(
                f"[data] unlabeled_images: {place} has {MOST:,} files or more. Take a part of them with a pattern, "
                "such as folder/a*.jpg, or list them as images without annotations in the training annotations."
            )
        yield path


def _known_images(files: DataFiles, train: Columns) -> set[str]:
    """Paths of the training and validation images that the annotations list."""
    named = [(files.train_images, train.file_names.tolist())]
    if files.val_annotations:
        if not Path(files.val_annotations).is_file():
            raise UserError(
                f"{files.val_annotations}: the validation annotations are not there, so unlabelled images cannot be "
                "told from validation images. Put them there."
            )
        named.append((files.val_images, read_columns(Path(files.val_annotations)).file_names.tolist()))
    return {os.path.normpath(image_path(Path(folder), name)) for folder, names in named for name in names}


def _sizes(paths: Sequence[str], progress: Progress | None) -> list[tuple[int, int, int]]:
    """Width, height and bytes of every image.

    Raises:
        UserError: how many cannot be read, and the first of them.
    """
    unreadable: list[str] = []

    def look(path: str) -> tuple[int, int, int]:
        try:
            state = Path(path).stat()
            if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
                raise OSError(path)
            width, height, _ = shown_size(path)
            return width, height, state.st_size
        except OSError as error:
            unreadable.append(f"{path} ({error.strerror or 'not an image'})")
            return 0, 0, 0

    found = _in_parallel(look, paths, progress)
    if unreadable:
        raise UserError(
            f"[data] unlabeled_images: {len(unreadable):,} of {len(paths):,} images cannot be read, such as "
            f"{min(unreadable)}. Remove them, or leave them out with a pattern."
        )
    return found


def _copies(paths: Sequence[str], sizes: Sequence[int], known: Sequence[str]) -> set[str]:
    """The paths whose content is that of a known file. Only files of equal size are read."""

    def size_of(path: str) -> int:
        try:
            return Path(path).stat().st_size
        except OSError:  # other checks say that it is missing
            return -1

    known_sizes = _in_parallel(size_of, known)
    shared = set(sizes) & set(known_sizes)
    alike = [path for path, size in zip(known, known_sizes, strict=True) if size in shared]
    contents = set(_in_parallel(_content, alike))
    suspected = [path for path, size in zip(paths, sizes, strict=True) if size in shared]
    return {
        path for path, content in zip(suspected, _in_parallel(_content, suspected), strict=True) if content in contents
    }


def _content(path: str) -> str:
    return sha256_file(Path(path))


def _in_parallel(
    function: Callable[[Item], Found], items: Sequence[Item], progress: Progress | None = None
) -> list[Found]:
    """The function of every item, in order, in blocks so that progress can be shown."""
    found: list[Found] = []
    block = max(1, min(2048, len(items) // 50))
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(items), block):
            found += pool.map(function, items[start : start + block])
            if progress is not None:
                progress(len(found), len(items))
    return found


def _columns(rows: Sequence[tuple[str, int, int, int]], train: Columns) -> Columns:
    """The images as columns without boxes, with ids above those of the annotations."""
    first = int(train.image_ids[-1]) + 1
    names, widths, heights, _ = zip(*rows, strict=True)
    return Columns(
        image_ids=np.arange(first, first + len(rows), dtype=np.int64),
        widths=np.array(widths, np.int32),
        heights=np.array(heights, np.int32),
        file_names=Strings.of(names),
        extras=Strings.of([""] * len(rows)),
        categories=train.categories,
        box_ids=np.empty(0, np.int64),
        box_image=np.empty(0, np.int32),
        box_label=np.empty(0, np.int16),
        crowd=np.empty(0, np.bool_),
        boxes=np.empty((0, 4)),
        areas=np.empty(0),
        flags=np.empty(0, np.uint16),
        digest="",
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(files: DataFiles) -> str:
    return f"[data] unlabeled_images: {', '.join(files.unlabeled_images)}"
