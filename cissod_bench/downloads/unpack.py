"""Unpack the items of a zip archive: nothing outside their places, no links, no more bytes than expected."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cissod_bench.downloads.catalog import Download, Item
from cissod_bench.downloads.check import Update, check_item, write_contents
from cissod_bench.errors import UserError
from cissod_bench.io import atomic_path, staged_folder

_PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)
"""Types of entries that are unpacked; 0 where the archive was made on a system without such types."""


def unpack(archive: Path, download: Download, root: Path, progress: Update | None = None) -> None:
    """Put every item of a download where it belongs, whole or not at all. Items that are there already stay.

    Args:
        archive: the zip file.
        download: what it should hold.
        root: the data root.
        progress: called with the bytes that are unpacked, and their number.

    Raises:
        UserError: an entry that leads elsewhere, is a link, encrypted or there twice; an item that is missing or of
            another size; more bytes than expected; a damaged archive.
        OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _refuse_unsafe(download, entries)
            missing = [item for item in download.items if check_item(item, root).state == "missing"]
            chosen = {item: _entries_of(download, item, entries) for item in missing}
            total = sum(entry.file_size for found in chosen.values() for entry in found)
            if total > download.unpacked:
                raise _refusal(download, f"unpacks to {total:,} bytes, more than {download.unpacked:,}")
            copy = _Copy(opened, total, progress)
            for item, found in chosen.items():
                _place(copy, item, found, root / item.path)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise _refusal(download, f"cannot be unpacked ({error})") from None


class _Copy:
    """Writes entries to files, and counts the bytes."""

    def __init__(self, archive: zipfile.ZipFile, total: int, progress: Update | None) -> None:
        self.archive, self.total, self.progress = archive, total, progress
        self.done = 0

    def __call__(self, entry: zipfile.ZipInfo, target: Path) -> None:
        # zipfile stops at the announced size and compares the CRC-32.
        with self.archive.open(entry) as source, target.open("wb") as written:
            shutil.copyfileobj(source, written, 2**18)
        self.done += entry.file_size
        if self.progress is not None:
            self.progress(self.done, self.total)


def _place(copy: _Copy, item: Item, entries: Sequence[zipfile.ZipInfo], target: Path) -> None:
    contents = {entry.filename.removeprefix(item.member): (entry.file_size, entry.CRC) for entry in entries}
    if not item.folder:
        with atomic_path(target) as temporary:
            copy(entries[0], temporary)
            if not item.checksum:
                write_contents(target, contents)
        return
    with staged_folder(target) as staging:
        for entry in entries:
            place = staging / entry.filename.removeprefix(item.member)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(entry, place)
        write_contents(target, contents)


def _entries_of(download: Download, item: Item, entries: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The entries that make an item.

    Raises:
        UserError: there are none, another number of images, or another size.
    """
    if item.folder:
        found = [entry for entry in entries if entry.filename.startswith(item.member) and not entry.is_dir()]
        if not found or item.images not in (None, len(found)):
            raise _refusal(download, f"has {len(found):,} files in {item.member}, not {item.images or 'some'}")
        return found
    found = [entry for entry in entries if entry.filename == item.member]
    if not found:
        raise _refusal(download, f"has no {item.member}")
    if item.size not in (None, found[0].file_size):
        raise _refusal(download, f"has a {item.member} of {found[0].file_size:,} bytes, not {item.size:,}")
    return found


def _refuse_unsafe(download: Download, entries: Sequence[zipfile.ZipInfo]) -> None:
    names = set()
    for entry in entries:
        path = PurePosixPath(entry.orig_filename)
        if path.is_absolute() or ".." in path.parts or set("\\\0") & set(entry.orig_filename):
            raise _refusal(download, f"has an entry that leads outside its folder ({entry.orig_filename!r})")
        if stat.S_IFMT(entry.external_attr >> 16) not in _PLAIN:
            raise _refusal(download, f"has a link or a device ({entry.filename!r})")
        if entry.flag_bits & 1:
            raise _refusal(download, f"is encrypted ({entry.filename!r})")
        if path in names:
            raise _refusal(download, f"has {entry.filename!r} twice")
        names.add(path)


def _refusal(download: Download, problem: str) -> UserError:
    return UserError(f"{download.name} {problem}. Get it by hand from the page that `data list` shows.")
