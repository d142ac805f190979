"""The images of a split on disk: whether they exist, their sizes, which are one file, the digests of their pixels."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cissod_bench.coco.checks import with_sizes
from cissod_bench.coco.columns import Columns
from cissod_bench.coco.names import file_name_hint
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_bytes, sha256_file
from cissod_bench.splits.write import Part

SAMPLE = 256
"""Images whose size on disk is compared with the annotations before training; the loader compares all of them."""

_ORIENTATION = 0x0112
_TURNED = range(5, 9)  # values of EXIF's orientation that exchange width and height
_TURNED_FORMATS = ("JPEG", "MPO", "PNG")  # those that OpenCV turns


def image_path(folder: Path, name: str) -> str:
    """Where an image lies: the rule of mmdet's data sets, so that checks look where the loader reads."""
    return name if name.startswith("/") else f"{folder}/{name}"


def missing_images(folder: Path, names: Iterable[str]) -> list[str]:
    """The file names, relative to `folder`, that do not exist.

    Every directory is listed once, since a million single look-ups would take minutes on a network drive.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        directory, _, base = image_path(folder, name).rpartition("/")
        if directory not in listed:
            listed[directory] = _file_names(directory)
        if base not in listed[directory]:
            missing.append(name)
    return missing


def _file_names(directory: str) -> set[str]:
    """Names in a directory; none if it cannot be listed."""
    try:
        with os.scandir(directory or "/") as entries:
            return {entry.name for entry in entries}
    except (OSError, ValueError):  # a NUL character in the name
        return set()


def refuse_missing(folder: Path, names: Sequence[str], annotations: str) -> None:
    """Refuse images that are not in their folder.

    Raises:
        UserError: how many are missing, the first of them, and why that may be.
    """
    missing = missing_images(folder, names)
    if not missing:
        return
    first = missing[0]
    directory = image_path(folder, first.lstrip("/")).rpartition("/")[0]
    hint = file_name_hint(first, _file_names(directory)) or "Give the folder that holds them."
    listed = ", ".join(map(_printable, missing[:3]))
    raise UserError(f"{folder} lacks {len(missing)} of {len(names)} images of {annotations}, such as {listed}. {hint}")


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def shown_size(path: str | Path) -> tuple[int, int, bool]:
    """Width and height of an image as OpenCV shows it, and whether EXIF's orientation exchanges the two.

    Raises:
        OSError: there is no such image, or its header is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.format in _TURNED_FORMATS and image.getexif().get(_ORIENTATION) in _TURNED
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, for some damaged files
        raise OSError(f"{path}: {error}") from error
    return (height, width, True) if turned else (width, height, False)


def filled_sizes(columns: Columns, folder: Path | None, annotations: Path) -> Columns:
    """Columns in which every image has a size: where the annotations have none, that of the file.

    Args:
        columns: the annotations.
        folder: folder of the images, None if it is not known.
        annotations: named in the message.

    Raises:
        UserError: sizes are missing and cannot be read.
    """
    rows = np.flatnonzero((columns.widths <= 0) | (columns.heights <= 0))
    if not len(rows):
        return columns
    names = columns.file_names.take(rows)
    problem = (
        f"{annotations}: {len(rows)} of {columns.num_images} images have no width and height, the first is image id "
        f"{columns.image_ids[rows[0]]} ({names[0]})"
    )
    if folder is None:
        raise UserError(f"{problem}. Add them, or give the folder of the images with --images to read them from there.")
    widths, heights = columns.widths.copy(), columns.heights.copy()
    for row, name in zip(rows.tolist(), names, strict=True):
        try:
            widths[row], heights[row], _ = shown_size(image_path(folder, name))
        except OSError as error:
            raise UserError(f"{problem}, and {name} in {folder} cannot be read ({error}). Add the sizes.") from None
    return with_sizes(columns, widths, heights)


def check_sizes(
    folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], annotations: str, sample: int = SAMPLE
) -> None:
    """Compare the sizes of a sample of images, evenly spread, with those of the annotations.

    Images that cannot be read are passed over: the loader has its own rule for them (`ssod/data/damaged.py`).

    Args:
        folder, names: where the images are.
        sizes: width and height of each in the annotations, 0 where they do not say.
        annotations: named in the message.
        sample: number of images to look at.

    Raises:
        UserError: an image has another size.
    """
    rows = sorted({round(row) for row in np.linspace(0, len(names) - 1, min(sample, len(names)))})
    differing = []
    for row in rows:
        try:
            width, height, turned = shown_size(image_path(folder, names[row]))
        except (OSError, ValueError):
            continue
        if min(sizes[row]) > 0 and (width, height) != tuple(sizes[row]):
            differing.append((row, width, height, turned))
    if differing:
        row, width, height, turned = differing[0]
        raise UserError(
            f"{annotations}: {names[row]} is {sizes[row][0]} x {sizes[row][1]} pixels in the annotations and "
            f"{width} x {height} in {folder}{', turned as its EXIF orientation says' if turned else ''} "
            f"({len(differing)} of {len(rows)} images looked at differ). "
            "Bring images and boxes to the same size and orientation."
        )


def shared_images(folder: Path, names: Sequence[str], other: Path, other_names: Sequence[str]) -> list[str]:
    """Names in `other_names` whose files are among `names`: the same file, or one of the same name and content.

    Args:
        folder, names: images and the folder that they are in.
        other, other_names: other images, and their folder.
    """
    by_base: dict[str, set[str]] = {}
    for path in _paths(folder, names):
        by_base.setdefault(path.rpartition("/")[2], set()).add(path)
    found = []
    for name, path in zip(other_names, _paths(other, other_names), strict=True):
        known = by_base.get(path.rpartition("/")[2], set())
        if path in known or any(_same_content(Path(path), Path(candidate)) for candidate in sorted(known)):
            found.append(name)
    return found


def refuse_shared(
    folder: Path, names: Sequence[str], other: Path, other_names: Sequence[str], annotations: str
) -> None:
    """Refuse validation images that are training images too.

    Args:
        folder, names: the training images and their folder.
        other, other_names: the validation images and their folder.
        annotations: the validation annotations, named in the message.

    Raises:
        UserError: how many there are, and the first of them.
    """
    shared = shared_images(folder, names, other, other_names)
    if shared:
        raise UserError(
            f"{annotations}: {len(shared)} of {len(other_names)} validation images are training images too, the first "
            f"is {shared[0]}. Take them out of one of the two."
        )


def _paths(folder: Path, names: Sequence[str]) -> list[str]:
    resolved = folder.resolve()
    return [os.path.normpath(image_path(resolved, name)) for name in names]


def _same_content(one: Path, other: Path) -> bool:
    try:
        same_size = one.stat().st_size == other.stat().st_size
        return same_size and (one.samefile(other) or sha256_file(one) == sha256_file(other))
    except OSError:  # one of them does not exist
        return False


def refuse_repeated_files(columns: Columns, annotations: Path) -> None:
    """Refuse annotations that list a file under two ids: the image could be labelled and unlabelled at once.

    Raises:
        UserError: the first such file with its ids, and how many there are.
    """
    first: dict[str, int] = {}
    repeated = []
    for row, name in enumerate(columns.file_names.tolist()):
        key = os.path.normpath(name)
        if first.setdefault(key, row) != row:
            repeated.append((name, first[key], row))
    if repeated:
        name, one, other = repeated[0]
        raise UserError(
            f"{annotations}: {name} is listed under two ids, {columns.image_ids[one]} and {columns.image_ids[other]} "
            f"({len(repeated)} such). Give every file one image id, and move the annotations to it."
        )


def pixels_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the pixels of an image, as rows of RGB: the same however the file is compressed.

    Raises:
        OSError: there is no such image, or it is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return sha256_bytes(f"{image.width} {image.height}\n".encode() + image.convert("RGB").tobytes())
    except (SyntaxError, ValueError) as error:  # what Pillow raises for some damaged PNG files
        raise OSError(f"{path} is damaged: {error}") from error


def check_images(folder: Path, parts: Sequence[Part], annotations: str) -> None:
    """Refuse a split whose images are not all in `folder`, or have other sizes there.

    Raises:
        UserError: what is missing or differs, and the first of it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no image folder {folder}. Give the folder of the training images.")
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    for part in parts:
        rows = np.sort(part.rows)
        names += part.columns.file_names.take(rows)
        sizes += zip(part.columns.widths[rows].tolist(), part.columns.heights[rows].tolist(), strict=True)
    refuse_missing(folder, names, annotations)
    check_sizes(folder, names, sizes, annotations)
