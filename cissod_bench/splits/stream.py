"""One large JSON object, read in pieces: the elements of its top-level arrays, a few megabytes at a time.

A COCO file is one JSON object with long arrays of objects. `JsonObject` walks over its keys; `elements` cuts an array
between two elements and hands each piece to a decoder. Where to cut is guessed from the text `}, {` and proved by the
decoder: a piece that starts at an element and decodes as a list ends between two elements of the same list, whatever
strings and nested arrays it holds. So the parser's own speed is kept, and only one piece is in memory.
"""

import gzip
import hashlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from cissod_bench.errors import UserError

Decoded = TypeVar("Decoded")

PIECE = 4 * 2**20
"""Bytes decoded at once: large enough for the parser's speed, small enough for the processor's cache."""

_LARGEST_ELEMENT = 512 * 2**20
_WRONG_CUTS = 50
_SPACE = re.compile(rb"[ \t\r\n]*")
_BETWEEN_ELEMENTS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SCALAR_END = re.compile(rb"[ \t\r\n,\]}]")
_BYTE = re.compile(r"\(byte (\d+)\)")


class HashedFile:
    """A file opened for reading that computes the SHA-256 of its raw bytes beside the reading, in a thread."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as a file gives them."""
        block = self._file.read(size)
        self.bytes_read += len(block)
        if self._pending is not None:
            self._pending.result()
        self._pending = self._thread.submit(self._digest.update, block)
        return block

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the whole file, reading what is left of it."""
        while self.read(PIECE):
            pass
        if self._pending is not None:
            self._pending.result()
        return self._digest.hexdigest()

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._file.close()


def decompressed(file: HashedFile, path: Path) -> Callable[[int], bytes]:
    """A `read(size)` over the content of a plain, gzip or xz file, told apart by their first bytes.

    Raises:
        UserError: on reading, if the compressed data is damaged or cut off.
    """
    with path.open("rb") as plain:
        start = plain.read(6)
    if start[:2] == b"\x1f\x8b":
        opened: Any = gzip.GzipFile(fileobj=cast(Any, file))
    elif start == b"\xfd7zXZ\x00":
        opened = lzma.LZMAFile(cast(Any, file))  # noqa: SIM115, closes nothing of its own
    else:
        return file.read

    def read(size: int) -> bytes:
        try:
            return cast(bytes, opened.read(size))
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: the compressed data is damaged or cut off ({error}).") from None

    return read


class JsonObject:
    """Cursor over one JSON object that is read piece by piece.

    Args:
        read: gives up to `size` further bytes, none at the end.
        path: named in the messages.
        piece: bytes decoded at once.
    """

    def __init__(self, read: Callable[[int], bytes], path: Path, piece: int = PIECE) -> None:
        self._read = read
        self._path = path
        self._piece = piece
        self._buffer = b""
        self._position = 0
        self._offset = 0  # of the buffer's first byte in the content
        self._ended = False

    def keys(self) -> Iterator[str]:
        """The object's keys in order; the consumer reads or skips each value before it goes on."""
        first = self._peek()
        if first == b"\xef" and self._starts_with(b"\xef\xbb\xbf"):
            self._position += 3
            first = self._peek()
        if first != b"{":
            found = "is empty" if first == b"" else f"starts with {first.decode('latin-1')!r}"
            raise UserError(f"{self._path} is not a COCO annotation file: it {found} instead of a JSON object.")
        self._position += 1
        if self._peek() == b"}":
            self._position += 1
        else:
            while True:
                yield self._key()
                separator = self._take()
                if separator == b"}":
                    break
                if separator != b",":
                    raise self._malformed("expected ',' or '}'")
        if self._peek() != b"":
            raise self._malformed("data after the end of the JSON object")

    def elements(self, decode: Callable[[bytes], Decoded]) -> Iterator[Decoded]:
        """Decode the array that comes next, one run of whole elements at a time.

        Args:
            decode: takes the text of a JSON list; raises `msgspec.DecodeError` if it is not one.

        Raises:
            UserError: not an array, malformed or cut off.
        """
        if self._take() != b"[":
            self._position -= 1
            raise self._malformed("expected a list")
        if self._peek() == b"]":
            self._position += 1
            return
        size = self._piece
        while True:
            self._fill(size)
            taken = self._decode_run(decode)
            if taken is None:
                if self._ended:
                    raise self._cut_off()
                if size > _LARGEST_ELEMENT:
                    raise self._malformed(f"an element is longer than {_LARGEST_ELEMENT} bytes")
                size *= 2
                continue
            size = self._piece
            decoded, length, last = taken
            self._position += length
            yield decoded
            if last:
                return

    def skip(self) -> None:
        """Pass over the value that comes next."""
        first = self._peek()
        if first in (b"{", b"["):
            self._skip_nested()
        elif first == b'"':
            self._string()
        else:
            end = self._search(_SCALAR_END)
            self._check_scalar(self._buffer[self._position : end])
            self._position = end

    def _decode_run(self, decode: Callable[[bytes], Decoded]) -> tuple[Decoded, int, bool] | None:
        """Decode as many whole elements as the buffer holds: (decoded, bytes consumed, whether the array ended).

        None if the buffer ends within the first element.
        """
        window = self._buffer[self._position :]
        for end, following in self._cuts(window):
            # The last try takes everything: the array's end, if it is there, shows as characters after the list.
            text = b"[" + window[:end] + b"]" if following else b"[" + window
            try:
                decoded = decode(text)
                return (decoded, following, False) if following else (decoded, len(window), True)
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                length = _list_length(text, error)
                if length is not None:
                    return decode(text[:length]), length - 1, True
                if "truncated" not in str(error):
                    raise self._decode_error(error) from None
        return None

    def _cuts(self, window: bytes) -> Iterator[tuple[int, int]]:
        """Places that look like a gap between two elements, last first: (end of one, start of the next).

        At the end the whole window, with 0 for the start of a next element.
        """
        end, width, tried = len(window), 2**12, 0
        while end > 0 and tried < _WRONG_CUTS:
            start = max(0, end - width)
            # A gap may straddle the border of two searched parts: look a little beyond the right one.
            for match in reversed(list(_BETWEEN_ELEMENTS.finditer(window, start, min(len(window), end + 256)))):
                if match.start() < end:
                    yield match.start() + 1, match.end()
                    tried += 1
            end, width = start, width * 4
        yield len(window), 0

    def _key(self) -> str:
        if self._peek() != b'"':
            raise self._malformed("expected a key")
        try:
            key = msgspec.json.decode(self._string(), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed("expected a key") from None
        if self._take() != b":":
            raise self._malformed("expected ':'")
        return key

    def _string(self) -> bytes:
        end = self._search(_STRUCTURE)
        text = self._buffer[self._position : end]
        self._position = end
        return text

    def _skip_nested(self) -> None:
        open_brackets: list[bytes] = []
        while True:
            end = self._search(_STRUCTURE)
            token = self._buffer[end - 1 : end]
            self._position = end
            if token in (b"{", b"["):
                open_brackets.append(token)
            elif token in (b"}", b"]"):
                if open_brackets.pop() + token not in (b"{}", b"[]"):
                    raise self._malformed("unbalanced brackets")
                if not open_brackets:
                    return

    def _search(self, pattern: re.Pattern[bytes]) -> int:
        """End of the next match (start of it for the end of a scalar), reading on until there is one."""
        size = self._piece
        while True:
            match = pattern.search(self._buffer, self._position)
            if match and (match.end() < len(self._buffer) or self._ended or pattern is not _SCALAR_END):
                return match.start() if pattern is _SCALAR_END else match.end()
            if self._ended:
                raise self._cut_off()
            size *= 2
            self._fill(size)

    def _check_scalar(self, text: bytes) -> None:
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if text not in (b"NaN", b"Infinity", b"-Infinity"):
                raise self._malformed("expected a value") from None

    def _starts_with(self, text: bytes) -> bool:
        self._fill(len(text))
        return self._buffer.startswith(text, self._position)

    def _peek(self) -> bytes:
        """The next byte that is no white space, not consumed; empty at the end of the content."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._buffer):
                return self._buffer[self._position : self._position + 1]
            if self._ended:
                return b""
            self._fill(self._piece)

    def _take(self) -> bytes:
        """The next byte that is no white space, consumed."""
        byte = self._peek()
        if byte == b"":
            raise self._cut_off()
        self._position += 1
        return byte

    def _fill(self, size: int) -> None:
        """Read on until `size` bytes lie before the cursor or the content ends."""
        missing = size - (len(self._buffer) - self._position)
        if missing <= 0 or self._ended:
            return
        blocks = [self._buffer[self._position :]]
        self._offset += self._position
        self._position = 0
        while missing > 0:
            block = self._read(missing)
            if not block:
                self._ended = True
                break
            blocks.append(block)
            missing -= len(block)
        self._buffer = b"".join(blocks)

    def _malformed(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged: {what} at byte {self._offset + self._position}.")

    def _cut_off(self) -> UserError:
        length = self._offset + len(self._buffer)
        return UserError(f"{self._path} is cut off: it ends after {length} bytes within the JSON object. Get it again.")

    def _decode_error(self, error: Exception) -> UserError:
        text = str(error)
        match = _BYTE.search(text)
        if match is None:
            return UserError(f"{self._path} is damaged after byte {self._offset + self._position}: {text}.")
        place = self._offset + self._position + int(match[1]) - 1
        reason = text[: match.start()].strip().removeprefix("JSON is malformed: ")
        return UserError(f"{self._path} is damaged: {reason} at byte {place}.")


def _list_length(text: bytes, error: Exception) -> int | None:
    """Length of the list at the start of `text`, if the decoder complains about what follows that list."""
    match = _BYTE.search(str(error))
    if match is None or "trailing characters" not in str(error):
        return None
    # The decoder reports the byte after the first character that does not belong.
    length = len(text[: int(match[1]) - 1].rstrip(b" \t\r\n"))
    return length if text[length - 1 : length] == b"]" else None
