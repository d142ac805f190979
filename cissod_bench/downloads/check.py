"""Whether the files and folders of a source are here: by size and number at once, by checksums on request."""

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cissod_bench.downloads.catalog import Item, Source
from cissod_bench.errors import UserError
from cissod_bench.io import decode_json, open_regular, read_regular, write_bytes

Update = Callable[[int, int | None], None]
"""Called with the bytes or files that are done, and how many there are in all, None if that is unknown."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Found:
    """What is known of an item.

    Attributes:
        path: where it belongs.
        state: whether it is right, as far as it was checked.
        detail: what is wrong, or how it was checked.
    """

    path: Path
    state: Literal["ok", "missing", "wrong"]
    detail: str


def check_source(source: Source, root: Path, *, full: bool = False, progress: Update | None = None) -> list[Found]:
    """Look at every item of a source.

    Args:
        source: what to look for.
        root: the data root.
        full: also read every file and compare checksums, where there are any.
        progress: called within a file or folder that is read.

    Raises:
        UserError: the list of contents of an item is damaged.
    """
    return [check_item(item, root, full=full, progress=progress) for item in source.items]


def check_item(item: Item, root: Path, *, full: bool = False, progress: Update | None = None) -> Found:
    """The same for one item."""
    path = root / item.path
    if not path.exists() or (item.folder and path.is_dir() and not any(path.iterdir())):
        return Found(path, "missing", "")
    if path.is_dir() != item.folder:
        return Found(path, "wrong", f"not a {'folder' if item.folder else 'file'}")
    try:
        problem, how = (_folder if item.folder else _file)(item, path, full, progress)
    except OSError as error:
        return Found(path, "wrong", f"cannot be read ({error.strerror})")
    return Found(path, "wrong", problem) if problem else Found(path, "ok", how)


def contents_file(path: Path) -> Path:
    """Where the list of what an archive brought lies: beside the item, so that the two move together."""
    return path.with_name(f"{path.name}.contents.json")


def write_contents(path: Path, files: dict[str, tuple[int, int]]) -> None:
    """Keep the sizes and CRC-32 of what was unpacked, which the archive says and nobody publishes.

    Args:
        path: the item.
        files: path below a folder, or "" for a file -> bytes, CRC-32.
    """
    write_bytes(contents_file(path), msgspec.json.encode(files))


def _contents(path: Path) -> dict[str, tuple[int, int]] | None:
    found = contents_file(path)
    if not found.is_file():
        return None
    return decode_json(read_regular(found), dict[str, tuple[int, int]], name=found, remedy="Remove it.")


def _file(item: Item, path: Path, full: bool, progress: Update | None) -> tuple[str, str]:
    """What is wrong with a file, and how it was checked."""
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        return f"{size:,} bytes instead of {item.size:,}", ""
    contents = None if item.checksum else _contents(path)
    if contents is not None and size != contents[""][0]:
        return f"{size:,} bytes instead of {contents[''][0]:,}", ""
    if full and item.checksum:
        return wrong_checksum(path, item.checksum, progress), f"{item.checksum.partition(':')[0]} agrees"
    if full and contents is not None:
        differs = _crc32(path, progress, size) != contents[""][1]
        return "its CRC-32 is not that of the archive's file" if differs else "", "CRC-32 agrees"
    if size == 0:
        return "empty", ""
    known = item.size is not None or contents is not None
    how = "size agrees" if known else "there; its size is not published"
    return "", f"{how}; no checksum is published" if full else how


def _folder(item: Item, path: Path, full: bool, progress: Update | None) -> tuple[str, str]:
    """What is wrong with a folder, and how it was checked."""
    contents = _contents(path)
    if contents is None:
        with os.scandir(path) as entries:
            count = sum(not entry.name.startswith(".") for entry in entries)
        if not count or item.images not in (None, count):
            return f"{count:,} files instead of {item.images:,}" if item.images else "empty", ""
        how = f"{count:,} files"
        return "", f"{how}; no list of checksums, which `data fetch` would have kept" if full else how
    for done, (name, (size, crc)) in enumerate(contents.items()):
        file = path / name
        if not file.is_file():
            return f"{name} is missing", ""
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}", ""
        if full and _crc32(file) != crc:
            return f"{name} has another CRC-32 than in the archive", ""
        if full and progress is not None:
            progress(done + 1, len(contents))
    return "", f"{len(contents):,} files, {'CRC-32' if full else 'all sizes'} agree"


def _crc32(path: Path, progress: Update | None = None, size: int = 0) -> int:
    value, done = 0, 0
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            value, done = zlib.crc32(block, value), done + len(block)
            if progress is not None:
                progress(done, size)
    return value


def wrong_checksum(path: Path, checksum: str, progress: Update | None = None) -> str:
    """How a file's checksum differs from the published one, empty if it does not.

    Args:
        path: the file.
        checksum: "algorithm:digits", the digits in full or their beginning.
        progress: called with the bytes that are read, and their number.
    """
    algorithm, _, digits = checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_regular(path) as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, size)
    found = digest.hexdigest()
    return "" if found.startswith(digits) else f"{algorithm} {found[: len(digits)]} instead of {digits}"


def refuse_wrong(found: Found) -> None:
    """Never overwrite what a user has put where a download belongs.

    Raises:
        UserError: the item is there and is not right.
    """
    if found.state == "wrong":
        raise UserError(f"{found.path}: {found.detail}. Remove it or move it away, then fetch again.")
