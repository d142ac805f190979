"""Files and folders written whole or not at all, and their digests."""

import codecs
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cissod_bench.errors import UserError

Decoded = TypeVar("Decoded")


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
    """Open an empty file under a lock that lasts until it is closed; waits for other writers."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # If the previous holder of the lock has renamed or removed the file, what we hold is not the file any more.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


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

    So `target` is always either the old folder or the complete new one. Leftovers of a killed process are removed by
    the next one.

    Args:
        target: a folder that does not exist, or an empty one.
        replaces: called with the new folder if `target` exists and is not empty; returns true to replace `target`,
            false to leave it untouched. Without it, such a `target` is refused.
        sync: flush every file to disk before the rename, so that a crash never leaves a folder of empty files.

    Raises:
        UserError: another process is writing the same folder, or `target` cannot be replaced or written.
    """
    target = target.resolve()
    staging = target.parent / f".{target.name}.partial"
    previous = target.parent / f".{target.name}.previous"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if previous.is_dir() and not target.exists():
            previous.rename(target)
        staging.mkdir(exist_ok=True)
        handle = os.open(staging, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{target} is being written by another process.") from None
        if not _same_folder(handle, staging):
            raise UserError(f"{target} is being written by another process.")
        _remove_content(staging)
        try:
            yield staging
            if _may_replace(target, staging, replaces):
                if sync:
                    _sync_files(staging)
                if target.exists() and any(target.iterdir()):
                    shutil.rmtree(previous, ignore_errors=True)
                    if _exchange(staging, target):
                        staging.rename(previous)
                    else:  # if killed between the two, the next writer puts the old folder back
                        target.rename(previous)
                        staging.rename(target)
                    shutil.rmtree(previous, ignore_errors=True)
                else:
                    staging.rename(target)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror or error}.") from error
        finally:
            if _same_folder(handle, staging):
                shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(handle)


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


def _same_folder(handle: int, path: Path) -> bool:
    """Whether the locked folder is still the one at `path`, and has not been renamed by another process."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _remove_content(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock a file within the block. The lock belongs to this process, not to its children, and ends with it.

    Raises:
        BlockingIOError: another process holds it.
    """
    with path.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def in_use(path: Path) -> bool:
    """Whether another process holds the lock of a file."""
    try:
        with path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
