"""Columns kept between runs, so that a second seed, a plot or a report of a large file costs seconds.

An entry is a folder of NumPy files named after the SHA-256 of the annotation file. A note for each path records size,
modification time and SHA-256, so that an unchanged file is found without hashing; a copied or touched file is hashed
and then found as well. The columns are mapped into memory, not read.

An entry appears whole or not at all, and under a lock: of two processes that need the same file one reads it and the
other waits. A thread writes the entry while the caller continues; the program waits for it at exit. A cache that
cannot be written is not an error: the file is then read every time.
"""

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Category, Columns, Strings
from cissod_bench.coco.reader import Read, SourceFile
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file, sha256_text, staged_folder, write_bytes

VERSION = 3
"""Raised whenever the columns or what is put into them change."""

SMALLEST = 64 * 2**20
"""Smaller files are read in about a second and not kept."""

KEEPING = "keeping columns"
"""Name of the thread that writes an entry."""

_ARRAYS = ("image_ids", "widths", "heights", "box_ids", "box_image", "box_label", "crowd", "boxes", "areas", "flags")
_STRINGS = ("file_names", "extras")


class _Note(msgspec.Struct):
    size: int
    mtime_ns: int
    sha256: str


class _Entry(msgspec.Struct):
    digest: str
    categories: list[Category]


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
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _known_sha256(note: Path, status: os.stat_result) -> str | None:
    try:
        known = msgspec.json.decode(note.read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return None
    return known.sha256 if (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns) else None


def _write_note(note: Path, status: os.stat_result, sha256: str) -> None:
    content = msgspec.json.encode(_Note(status.st_size, status.st_mtime_ns, sha256))
    with contextlib.suppress(OSError):  # without the note the file is hashed again next time
        if not note.is_file() or note.read_bytes() != content:
            write_bytes(note, content)


def _store(folder: Path, columns: Columns) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(columns, name))
    for name in _STRINGS:
        strings: Strings = getattr(columns, name)
        np.save(folder / f"{name}.data.npy", strings.data)
        np.save(folder / f"{name}.ends.npy", strings.ends)
    # Last: an entry without it is incomplete.
    write_bytes(folder / "entry.json", msgspec.json.encode(_Entry(columns.digest, list(columns.categories))))


def _load(entry: Path) -> Columns | None:
    """The columns of an entry, mapped into memory; None unless the entry is complete."""
    try:
        about = msgspec.json.decode((entry / "entry.json").read_bytes(), type=_Entry)
        values: dict[str, Any] = {name: _mapped(entry / f"{name}.npy") for name in _ARRAYS}
        values |= {
            name: Strings(_mapped(entry / f"{name}.data.npy"), _mapped(entry / f"{name}.ends.npy")) for name in _STRINGS
        }
    except (OSError, ValueError, EOFError, msgspec.DecodeError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    assert {*_ARRAYS, *_STRINGS, "categories", "digest"} == {field.name for field in fields(Columns)}
    return Columns(**values, categories=tuple(about.categories), digest=about.digest)


def _mapped(path: Path) -> npt.NDArray[Any]:
    # A plain array: every operation on an `np.memmap` creates another one, which takes time.
    return np.asarray(np.load(path, mmap_mode="r"))
