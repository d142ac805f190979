"""Bring one file from a server: into a `.part` file that a later try continues, verified before anybody uses it."""

import contextlib
import errno
import fcntl
import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from cissod_bench.downloads.catalog import Download
from cissod_bench.downloads.check import Update, wrong_checksum
from cissod_bench.errors import UserError
from cissod_bench.version import __version__

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as cut."""
_BLOCK = 2**18


class _Again(Exception):
    """What lies in the part file is no beginning of the server's file."""


@contextlib.contextmanager
def part_file(folder: Path, name: str) -> Iterator[Path]:
    """The part file of a download, made if need be and locked within the block. Only a file of ours is written to.

    Args:
        folder: where the download belongs; is made.
        name: of the file.

    Raises:
        UserError: another process downloads it, or something else has the name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.part"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Downloads go there; remove what has its name.") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise UserError(f"{path} is no file of its own. Downloads go there; remove what has its name.")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another process is downloading this file.") from None
        if not (path.exists() and os.path.samestat(status, path.lstat())):
            raise UserError(f"{path}: another process has just finished this download. Run the command again.")
        yield path
    finally:
        os.close(handle)


def receive(download: Download, part: Path, progress: Update | None = None) -> None:
    """Complete a part file. It stays as it is when something goes wrong, and the next call continues it.

    Args:
        download: what to bring.
        part: what has come so far.
        progress: called with the bytes that have come, and their number.

    Raises:
        UserError: the server cannot be reached, has no such file or another one, the connection is cut, or the disk is
            full.
    """
    for _ in range(2):
        with part.open("rb+", buffering=0) as file:  # a full disk is an error of the write, not of the close
            have = file.seek(0, os.SEEK_END)
            if download.size is not None and have == download.size:
                return
            if download.size is not None and have > download.size:
                file.truncate(0)
                have = 0
            try:
                _continue(download, file, have, progress)
                return
            except _Again:
                file.truncate(0)
            except OSError as error:
                # urllib's own errors are OSErrors too, without a number.
                if error.errno in NO_SPACE:
                    raise UserError(
                        f"{part}: {error.strerror}. Free some disk space, then run the same command again; it "
                        "continues where it stopped."
                    ) from None
                raise _cut(download, file, error) from None
            except http.client.HTTPException as error:
                raise _cut(download, file, error) from None
    raise UserError(f"{download.url}: the server sends no file from its beginning. Try again later.")


def verify(download: Download, part: Path, progress: Update | None = None) -> None:
    """Compare a complete part file with the published checksum; remove it if it is another file.

    Raises:
        UserError: it is another file.
    """
    problem = wrong_checksum(part, download.checksum, progress)
    if problem:
        part.unlink()
        raise UserError(
            f"{download.url}: the file that came has the checksum {problem}. It was removed; run the same command "
            "again, and if that does not help, the server has another file than the published one."
        )


def _continue(download: Download, file: FileIO, have: int, progress: Update | None) -> None:
    """Append what the server has beyond the first `have` bytes.

    Raises:
        _Again: they are not the beginning of the server's file.
        UserError: no such file, or another one.
        OSError, HTTPException: the connection is cut, or the disk is full.
    """
    headers = {"User-Agent": f"cissod-bench/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(download.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                if _total(error.headers.get("Content-Range")) == have:
                    return
                raise _Again from None
            raise UserError(
                f"{download.url}: the server answers {error.code} {error.reason}. Try again later; if the file has "
                "moved, get it by hand from the page that `data list` shows."
            ) from None
    with response:
        start, total = _extent(response, have)
        if download.size is not None and total not in (None, download.size):
            raise UserError(
                f"{download.url}: the server's file has {total:,} bytes, the published one {download.size:,}: it is "
                "another file. Get it by hand from the page that `data list` shows."
            )
        file.seek(start)
        file.truncate()
        end = download.size if total is None else total
        done = start
        while block := response.read1(_BLOCK):  # what has come, so that little is lost when the process is killed
            done += len(block)
            if end is not None and done > end:
                raise http.client.HTTPException("more bytes than announced")
            _write(file, block)
            if progress is not None:
                progress(done, end)
        os.fsync(file.fileno())
        if end is not None and done < end:
            raise http.client.HTTPException("the server ended it early")


def _write(file: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """Where in the file an answer begins, and how long the file is, None if the server does not say.

    Raises:
        _Again: it begins somewhere else than where the part file ends.
    """
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            raise _Again
        return have, None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")  # a server without ranges sends everything again
    return 0, int(length) if length.isdecimal() else None


def _total(content_range: str | None) -> int | None:
    found = re.fullmatch(r"bytes \*/(\d+)", content_range or "")
    return None if found is None else int(found[1])


def _cut(download: Download, file: FileIO, error: Exception) -> UserError:
    """The connection failed; what has come so far is kept."""
    have = file.seek(0, os.SEEK_END)
    of = "" if download.size is None else f" of {download.size:,}"
    reason = getattr(error, "reason", None) or error
    return UserError(
        f"{download.url}: the connection failed after {have:,}{of} bytes ({reason}). Run the same command again; it "
        "continues where it stopped."
    )
