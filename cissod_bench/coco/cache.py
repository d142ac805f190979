"""Columns kept between runs, so that a second seed, a plot or a report of a large file costs seconds.

An entry is a folder of NumPy files named after the SHA-256 of the annotation file. A note for each path records size,
modification time and SHA-256, so that an unchanged file is found without hashing; a copied or touched file is hashed
and then found as well. The columns are mapped into memory, not read.

A column has a checksum, so that a flipped bit or a column cut short is noticed and the file is read again.

An entry appears whole or not at all, and under a lock: of two processes that need the same file one reads it and the
other waits. A thread writes the entry while the caller continues; the program waits for it at exit. A cache that
cannot be written is not an error: the file is then read every time.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Category, Columns, Strings
from cissod_bench.coco.reader import Read, SourceFile
from cissod_bench.errors import UserError
from cissod_bench.io import decode_json, read_regular, sha256_file, sha256_text, staged_folder, write_bytes

VERSION = 4
"""Raised whenever the columns or what is put into them change."""

SMALLEST = 64 * 2**20
"""Smaller files are read in about a second and not kept."""

KEEPING = "keeping columns"
"""Name of the thread that writes an entry."""

_ARRAYS = ("image_ids", "widths", "heights", "box_ids", "box_image", "box_label", "crowd", "boxes", "areas", "flags")
_STRINGS = ("file_names", "extras")
_NAMES = (*_ARRAYS, *(f"{name}.{part}" for name in _STRINGS for part in ("data", "ends")))


class _Note(msgspec.Struct):
    size: int
    mtime_ns: int
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]  # part of the name of the entry


class _Column(msgspec.Struct, frozen=True):
    """What an array must be: its NumPy type, its shape, and the CRC-32 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    crc32: int


class _Entry(msgspec.Struct):
    digest: str
    categories: list[Category]
    columns: dict[str, _Column]


def default_folder() -> Path:
    """`cissod-bench` under the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cissod-bench"


def cached(read: Read, folder: Path, variant: str = "", smallest: int = SMALLEST) -> Read:
    """A reader that keeps what `read` returns.

    Args:
        read: the reader.
        folder: where entries are kept.
        variant: whatever else the result of `read` depends on; part of the entry's name.
        smallest: files of fewer bytes are not kept.
    """

    def read_through(path: Path) -> tuple[Columns, SourceFile]:
        try:
            status = path.stat()
        except OSError:
            return read(path)  # and let it raise the right error
        if not path.is_file() or status.st_size < smallest:
            return read(path)
        name = f"v{VERSION}-{variant}-" if variant else f"v{VERSION}-"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            note = folder / f"{sha256_text(str(path.resolve()))[:32]}.json"
            with contextlib.ExitStack() as locked:
                locked.enter_context(_locked(folder / f"{note.stem}{variant}.lock"))
                sha256 = _known_sha256(note, status)
                if sha256 is None and any(folder.glob(f"{name}*")):
                    sha256 = sha256_file(path)
                if sha256 is not None and (columns := _load(folder / f"{name}{sha256}")) is not None:
                    _write_note(note, status, sha256)
                    return columns, SourceFile(path.name, status.st_size, lambda: sha256)
                columns, source = read(path)
                keep = partial(_keep, locked.pop_all(), path, status, note, name, columns, source)
                threading.Thread(target=keep, name=KEEPING).start()
                return columns, source
        except OSError:  # the cache is not accessible, and nothing has been read yet
            return read(path)

    return read_through


def _keep(
    lock: contextlib.ExitStack,
    path: Path,
    status: os.stat_result,
    note: Path,
    name: str,
    columns: Columns,
    source: SourceFile,
) -> None:
    """Write an entry and its note in the background, unless the file has changed since it was read."""
    # On a full disk nothing is kept; a digest that could not be computed is reported to the caller elsewhere.
    with lock, contextlib.suppress(OSError, UserError):
        sha256 = source.sha256  # wait for it before writing, so that only one of the two competes with the caller
        if path.stat().st_mtime_ns != status.st_mtime_ns:
            return
        with staged_folder(note.with_name(name + sha256), replaces=lambda _: False, sync=False) as staging:
            _store(staging, columns)
        _write_note(note, status, sha256)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _known_sha256(note: Path, status: os.stat_result) -> str | None:
    try:
        known = decode_json(read_regular(note), _Note, name=note)
    except (OSError, UserError):
        return None
    return known.sha256 if (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns) else None


def _write_note(note: Path, status: os.stat_result, sha256: str) -> None:
    content = msgspec.json.encode(_Note(status.st_size, status.st_mtime_ns, sha256))
    with contextlib.suppress(OSError):  # without the note the file is hashed again next time
        if not note.is_file() or note.read_bytes() != content:
            write_bytes(note, content)


def _store(folder: Path, columns: Columns) -> None:
    arrays = _arrays(columns)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    about = {name: _Column(array.dtype.str, array.shape, _crc32(array)) for name, array in arrays.items()}
    # Last: an entry without it is incomplete.
    content = msgspec.json.encode(_Entry(columns.digest, list(columns.categories), about))
    write_bytes(folder / "entry.json", content)


def _load(entry: Path) -> Columns | None:
    """The columns of an entry, mapped into memory; None unless the entry is complete and undamaged."""
    try:
        about = decode_json(read_regular(entry / "entry.json"), _Entry, name=entry)
        arrays = {name: _mapped(entry / f"{name}.npy") for name in _NAMES}
        found = {name: _Column(array.dtype.str, array.shape, _crc32(array)) for name, array in arrays.items()}
        if found != about.columns:
            raise ValueError("a column is damaged")
    except (OSError, ValueError, EOFError, UserError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    values: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    values |= {name: Strings(arrays[f"{name}.data"], arrays[f"{name}.ends"]) for name in _STRINGS}
    assert {*values, "categories", "digest"} == {field.name for field in fields(Columns)}
    return Columns(**values, categories=tuple(about.categories), digest=about.digest)


def _arrays(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an entry by the names of their files."""
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(columns, name) for name in _ARRAYS}
    for name in _STRINGS:
        strings: Strings = getattr(columns, name)
        arrays |= {f"{name}.data": strings.data, f"{name}.ends": strings.ends}
    return arrays


def _crc32(array: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _mapped(path: Path) -> npt.NDArray[Any]:
    # A plain array: every operation on an `np.memmap` creates another one, which takes time.
    return np.asarray(np.load(path, mmap_mode="r"))
