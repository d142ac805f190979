"""The SHA-256 of a large file, computed by another process while this one goes on.

Not by a thread: after every block it would have to wait for the interpreter.
"""

import contextlib
import io
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from cissod_bench.errors import UserError

# It gives way to the caller, who has more to do.
_PROGRAM = "import hashlib, os, sys; os.nice(5); print(hashlib.file_digest(sys.stdin.buffer, 'sha256').hexdigest())"


class FileDigest:
    """Hashing of a file that has been read. It starts at once; a call waits for it. Threads may share it.

    Args:
        path: the file.
        file: the same, open, and not read any more; may be closed afterwards.
        read: its status before it was read.
    """

    def __init__(self, path: Path, file: io.FileIO, read: os.stat_result) -> None:
        self._path, self._read = path, read
        self._lock = threading.Lock()
        self._output = b""
        file.seek(0)
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
        self._process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        # After an error elsewhere nobody asks for the digest: the process must not go on then.
        weakref.finalize(self, _end, self._process)

    def __call__(self) -> str:
        """The digest, in hexadecimal.

        Raises:
            UserError: the file was changed after it was read, or the process was killed.
        """
        with self._lock:
            if self._process.returncode is None:
                self._output = self._process.communicate()[0]
        if self._process.returncode:
            raise UserError(
                f"{self._path} was not hashed: the process that did it ended with status {self._process.returncode}. "
                "Run the command again."
            )
        with contextlib.suppress(FileNotFoundError):  # deleted or replaced since: what was read is what was hashed
            now = self._path.stat()
            if now.st_ino == self._read.st_ino and (now.st_size, now.st_mtime_ns) != (
                self._read.st_size,
                self._read.st_mtime_ns,
            ):
                raise UserError(f"{self._path} was changed while it was read. Run the command again.")
        return self._output.decode().strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        process.kill()
        process.communicate()
