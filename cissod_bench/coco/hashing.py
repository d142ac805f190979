"""The SHA-256 of a large file, computed by another process in the background.

A thread would not do: it would have to wait for the interpreter after every block.
"""

import hashlib
import io
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path

from cissod_bench.errors import UserError

# It runs at a lower priority than its caller and ends with it.
_PROGRAM = """
import hashlib, os, sys
os.nice(5)
digest = hashlib.sha256()
while block := sys.stdin.buffer.read(2**20):
    digest.update(block)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
print(digest.hexdigest())
"""


class FileDigest:
    """Hashing of a file that has been read. It starts immediately; calling the object waits for it. Thread-safe.

    Args:
        path: the file, named in error messages.
        file: the same file, open, no longer being read; may be closed afterwards.
        read: its status before it was read.
    """

    def __init__(self, path: Path, file: io.FileIO, read: os.stat_result) -> None:
        self._result: Future[str] = Future()
        own = io.FileIO(os.dup(file.fileno()))
        own.seek(0)
        process = _started(own)
        if process is not None:
            weakref.finalize(self, _give_up, self._result, process)
        # In a thread: a signal could interrupt the caller between receiving the digest and storing it.
        threading.Thread(target=_settle, args=(self._result, path, own, read, process), daemon=True).start()

    def __call__(self) -> str:
        """The digest, in hexadecimal.

        Raises:
            UserError: the file was changed after it was read, or cannot be read again.
        """
        return self._result.result()


def _give_up(result: "Future[str]", process: "subprocess.Popen[bytes]") -> None:
    """After an error elsewhere nobody asks for the digest any more: stop everything."""
    result.cancel()
    process.kill()


def _started(file: io.FileIO) -> "subprocess.Popen[bytes] | None":
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid())]
    try:
        return subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:  # the system is out of memory or processes
        return None


def _settle(
    result: "Future[str]",
    path: Path,
    file: io.FileIO,
    read: os.stat_result,
    process: "subprocess.Popen[bytes] | None",
) -> None:
    """Wait for the process; hash the file here if the process could not start or failed."""
    try:
        with file:
            digest = process.communicate()[0].decode().strip() if process else ""
            if not result.set_running_or_notify_cancel():
                return
            if process is None or process.returncode:
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (read.st_size, read.st_mtime_ns):
            raise UserError(f"{path} was changed while it was read. Run the command again.")
    except OSError as error:
        result.set_exception(UserError(f"{path} cannot be read: {error.strerror or error}."))
    except UserError as error:
        result.set_exception(error)
    else:
        result.set_result(digest)
