"""The images of a split on disk: whether they exist, and the digests of their pixels."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cissod_bench.errors import UserError
from cissod_bench.io import sha256_bytes
from cissod_bench.splits.write import Part


def missing_images(folder: Path, names: Sequence[str]) -> list[str]:
    """The file names, relative to `folder`, that do not exist.

    Every directory is listed once, since a million single look-ups would take minutes on a network drive.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        directory, _, base = name.rpartition("/")
        if directory not in listed:
            try:
                with os.scandir(folder / directory) as entries:
                    listed[directory] = {entry.name for entry in entries}
            except OSError:
                listed[directory] = set()
        if base not in listed[directory]:
            missing.append(name)
    return missing


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


def check_images(folder: Path, parts: Sequence[Part]) -> None:
    """Refuse a split whose images are not all in `folder`.

    Raises:
        UserError: how many are missing, and the first of them.
    """
    if not folder.is_dir():
        raise UserError(f"There is no image folder {folder}. Give the folder of the training images.")
    names = [name for part in parts for name in part.columns.file_names.take(np.sort(part.rows))]
    missing = missing_images(folder, names)
    if missing:
        examples = ", ".join(missing[:3])
        missing_names = f"{len(missing)} of {len(names)} images, such as {examples}"
        raise UserError(f"{folder} lacks {missing_names}. Give the folder that holds them.")
