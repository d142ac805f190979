"""Files and folders written whole or not at all, and their digests."""

import codecs
import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cissod_bench.errors import UserError

Decoded = TypeVar("Decoded")

MARKER = ".cissod-bench-partial"
"""File by which a temporary folder is known to be of this program."""


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target` that replaces it when the block ends without an error.

    The temporary file is flushed to disk before the rename, so that after a crash `target` is either the old file or
    the complete new one. On an error the temporary file is removed. Its name depends on `target` alone: leftovers of a
    killed process are overwritten by the next one, and two processes that write the same file take turns.

    Raises:
        OSError: `target` cannot be written; the error names it.
    """
    # Some writers choose the format by the suffix.
    temporary = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock_file(temporary)
    except OSError as error:
        raise _named(error, target) from error
    try:
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _named(error, target) from error
    finally:
        os.close(handle)


def _lock_file(path: Path) -> int:
    """Open an empty file under a lock that lasts until it is closed; waits for other writers.

    What is there is never emptied, since a link may lead to a file of somebody else: it is removed and made anew.
    """
    while True:
        handle = _opened_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, path):  # the previous holder may have renamed or removed the file
                status = os.fstat(handle)
                if status.st_size == 0 and status.st_nlink == 1:
                    return handle
                path.unlink()
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _opened_lock(path: Path) -> int:
    """Open a file of ours, made if need be; anything else under its name is removed."""
    while True:
        handle = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a symbolic link, or a pipe or socket
                raise
        if handle is not None and stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        if handle is not None:
            os.close(handle)
        path.unlink(missing_ok=True)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder is the one at `path`, and has not been renamed or removed."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _named(error: OSError, target: Path) -> OSError:
    """The error with the name of the target file, which a failed write does not know."""
    if error.errno is None:
        return error
    return OSError(error.errno, os.strerror(error.errno), str(target))


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write `content` to `target` atomically as UTF-8 with `\\n` line ends."""
    write_bytes(target, content.encode("utf-8"))


@contextlib.contextmanager
def staged_folder(target: Path, *, replaces: Callable[[Path], bool] | None = None, sync: bool = True) -> Iterator[Path]:
    """Yield an empty folder next to `target` that takes its place when the block ends without an error.

    So `target` is always either the old folder or the complete new one. The new folder grows in `.NAME.RANDOM.partial`,
    which holds a marker; leftovers of a killed process are removed by the next one, if they have the marker.

    Args:
        target: a folder that does not exist, or an empty one.
        replaces: called with the new folder if `target` exists and is not empty; returns true to replace `target`,
            false to leave it untouched. Without it, such a `target` is refused.
        sync: flush every file to disk before the rename, so that a crash never leaves a folder of empty files.

    Raises:
        UserError: another process is writing the same folder, or `target` cannot be replaced or written.
    """
    target = target.resolve()
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_sole_writer(target))
            for leftover in _leftovers(target):
                _clear(leftover, target)
            room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
            stack.callback(_clear, room, target)
            (room / MARKER).touch()
            staging = room / "new"
            staging.mkdir()
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}.") from None
        try:
            yield staging
            if _may_replace(target, staging, replaces):
                if sync:
                    _sync_files(staging)
                if not (target.exists() and any(target.iterdir())):
                    staging.rename(target)
                elif not _exchange(staging, target):
                    target.rename(room / "old")  # if killed here, the next writer puts the old folder back
                    staging.rename(target)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def _sole_writer(target: Path) -> Iterator[None]:
    """Lock the place of a folder for the block.

    Raises:
        UserError: another process is writing the same folder.
    """
    path = target.parent / f".{target.name}.lock"
    while True:
        handle = _opened_lock(path)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{target} is being written by another process.") from None
            if _is_at(handle, path):
                try:
                    yield
                finally:
                    if not os.fstat(handle).st_size:  # a lock of ours is empty
                        path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _leftovers(target: Path) -> list[Path]:
    """Folders in which killed processes wrote `target`: real folders of this user with our marker, or empty."""
    named = target.parent.glob(f".{glob.escape(target.name)}.*.partial")
    return [room for room in named if _is_ours(room)]


def _is_ours(room: Path) -> bool:
    try:
        found = room.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        return not any(room.iterdir()) or stat.S_ISREG((room / MARKER).lstat().st_mode)
    except OSError:
        return False


def _clear(room: Path, target: Path) -> None:
    """Remove a folder of ours with what is in it, and put back a `target` that was moved into it. No link is followed.

    The marker goes last, so that what a killed process has not removed yet is still known to be ours.
    """
    old = room / "old"
    if old.is_dir() and not old.is_symlink() and not os.path.lexists(target):
        old.rename(target)
    for entry in (old, room / "new"):
        shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(room, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step (Linux, `renameat2(2)`); false if the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _may_replace(target: Path, staging: Path, replaces: Callable[[Path], bool] | None) -> bool:
    if not target.exists():
        return True
    if not target.is_dir():
        raise UserError(f"{target} is not a folder.")
    if not any(target.iterdir()):
        return True
    if replaces is None:
        raise UserError(f"{target} is not empty. Choose another folder.")
    return replaces(staging)


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read. Pipes, devices and sockets are refused, on which a program would wait, or read for ever.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        limit: largest number of bytes that are read.

    Raises:
        OSError: as of `open_regular`, or the file is larger than `limit`.
    """
    with open_regular(path) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", str(path))
        return file.read()


def decode_json(content: bytes, kind: type[Decoded], *, name: str | Path, remedy: str = "") -> Decoded:
    """JSON of anybody, as a type of msgspec.

    Args:
        content: the text; a byte order mark is passed over.
        kind: the type.
        name: of the file, for the message.
        remedy: what to do, as a sentence.

    Raises:
        UserError: not UTF-8, not JSON, nested too deep, or of another form.
    """
    try:
        return msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{name} cannot be read: {error}. {remedy}".rstrip()) from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def write_json(target: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON with sorted keys and a final line end."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    write_text(target, text + "\n")


def sha256_text(text: str) -> str:
    """Hexadecimal SHA-256 of the UTF-8 bytes of `text`."""
    return sha256_bytes(text.encode("utf-8"))


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock a file within the block. The lock belongs to this process, not to its children, and ends with it.

    Raises:
        BlockingIOError: another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def in_use(path: Path) -> bool:
    """Whether another process holds the lock of a file."""
    try:
        with open_regular(path) as file:  # a shared lock needs no permission to write
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
