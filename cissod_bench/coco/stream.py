"""One large JSON object, read in pieces: the elements of its top-level arrays, a few megabytes at a time.

A COCO file is one JSON object with long arrays of objects. `JsonObject` walks over its keys; `elements` cuts an array
between two elements and hands each piece to a decoder. The place to cut is guessed from the text `}, {` and proved by
the decoder: a piece that starts at an element and decodes as a list ends between two elements of the same list,
whatever strings and nested arrays it holds. This keeps the parser's own speed, and only one piece is in memory.
"""

import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import open_regular

Decoded = TypeVar("Decoded")
Decode = Callable[[memoryview], Decoded]
ReadInto = Callable[[memoryview], int]
Ahead = Callable[[int], Iterable[tuple[Decoded, int]]]
"""Decodes elements elsewhere, starting with the one at an offset; yields them with the offset of the next one."""

PIECE = 2**21
"""Bytes decoded at a time: enough for the parser's full speed, and few enough for the processor's cache."""

_LARGEST_ELEMENT = 512 * 2**20
_WRONG_CUTS = 50
_LONGEST_NUMBER = 512
_SPACE = re.compile(rb"[ \t\r\n]*")
BETWEEN_ELEMENTS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
# A bracket, or a string. A string that the buffer cuts off is matched as well, up to the end of the buffer and without
# group 1, so that no bracket inside it counts.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:(")|\\?\Z)|([\[\]{}])', re.DOTALL)
_SCALAR = re.compile(rb"([^ \t\r\n,\]}]*)(?=[ \t\r\n,\]}])")
_NOT_A_NUMBER = re.compile(rb"NaN|Infinity")
_BYTE = re.compile(r"\(byte (\d+)\)")


@dataclass(frozen=True)
class Content:
    """The content of an open file.

    Attributes:
        read_into: fills a buffer with further content, returns the number of bytes, 0 at the end.
        raw: the file itself.
        plain: the content is that of the file itself, not compressed, so that its parts can be read in any order.
    """

    read_into: ReadInto
    raw: io.FileIO
    plain: bool


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open a plain, gzip or xz file, told apart by their first bytes, for reading its content.

    Raises:
        UserError: on reading, if compressed data is damaged or cut off.
    """
    with open_regular(path) as buffered, io.FileIO(os.dup(buffered.fileno())) as raw:
        start = raw.read(6)
        raw.seek(0)
        if start[:2] == b"\x1f\x8b":
            content: gzip.GzipFile | lzma.LZMAFile | None = gzip.GzipFile(fileobj=raw, mode="rb")
        elif start == b"\xfd7zXZ\x00":
            content = lzma.LZMAFile(raw)  # noqa: SIM115, the file under it is closed here
        else:
            content = None

        def read_into(buffer: memoryview) -> int:
            if content is None:
                return raw.readinto(buffer) or 0
            try:
                return content.readinto(buffer)
            except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
                raise UserError(f"{path}: the compressed data is damaged or cut off ({error}).") from None

        yield Content(read_into, raw, plain=content is None)


class JsonObject:
    """A cursor over one JSON object that is read piece by piece.

    Args:
        content: what to read.
        path: named in error messages.
        piece: bytes decoded at a time.
    """

    def __init__(self, content: Content, path: Path, piece: int = PIECE) -> None:
        self._content = content
        self._path = path
        self._piece = piece
        # Content lies between `position` and `end`, with at least one byte before it: a piece of an array is turned
        # into a list in place, so the bytes around it, already consumed or restored later, become brackets.
        self._buffer = bytearray(piece + 1)
        self._position = self._end = 1
        self._offset = -1  # of the buffer's first byte in the content
        self._ended = False

    def keys(self) -> Iterator[str]:
        """The keys of the object in order; the caller reads or skips each value before it asks for the next key.

        Raises:
            UserError: not a JSON object, malformed or cut off.
        """
        first = self._start()
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
        self._finish()

    def array(self, decode: Decode[Decoded]) -> Iterator[Decoded]:
        """Decode content that is one array instead of an object, as `elements` does.

        Raises:
            UserError: not an array, malformed or cut off.
        """
        first = self._start()
        if first != b"[":
            found = "is empty" if first == b"" else f"starts with {first.decode('latin-1')!r}"
            raise UserError(f"{self._path} {found} instead of a JSON list.")
        yield from self.elements(decode)
        self._finish()

    def elements(self, decode: Decode[Decoded], ahead: Ahead[Decoded] | None = None) -> Iterator[Decoded]:
        """Decode the next value, an array, one run of whole elements at a time.

        Args:
            decode: takes the text of a JSON list; raises `msgspec.DecodeError` if it is not one.
            ahead: called before each run for elements that have been decoded elsewhere; only for plain content.

        Raises:
            UserError: not an array, malformed or cut off.
        """
        if self._peek() != b"[":
            raise self._malformed("expected a list")
        self._position += 1
        if self._take() == b"]":
            return
        self._position -= 1
        size = self._piece
        while True:
            for decoded, offset in ahead(self._offset + self._position) if ahead else ():
                self._seek(offset)
                yield decoded
            self._fill(size)
            run = self._decode_run(decode)
            if run is not None:
                decoded, self._position, last = run
                yield decoded
                if last:
                    return
                size = self._piece
            elif self._ended:
                raise self._cut_off()
            elif size > _LARGEST_ELEMENT:
                raise self._malformed(f"an element is longer than {_LARGEST_ELEMENT} bytes")
            else:
                size *= 2

    def _start(self) -> bytes:
        """The first byte of the content, not consumed; a byte order mark is passed over."""
        if self._peek() == b"\xef" and self._window(3) == b"\xef\xbb\xbf":
            self._position += 3
        return self._peek()

    def _finish(self) -> None:
        if self._peek() != b"":
            raise self._malformed("data after the end of the JSON value")

    def skip(self) -> None:
        """Skip the next value.

        Raises:
            UserError: malformed or cut off.
        """
        first = self._peek()
        if first not in (b"{", b"["):
            text = self._match(_TOKEN if first == b'"' else _SCALAR)
            try:
                msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                if text not in (b"NaN", b"Infinity", b"-Infinity"):
                    raise self._malformed("expected a value") from None
            return
        brackets: list[bytes] = []
        while True:
            token = self._match(_TOKEN)
            if token in (b"{", b"["):
                brackets.append(token)
            elif token in (b"}", b"]"):
                if brackets.pop() + token not in (b"{}", b"[]"):
                    raise self._malformed("unbalanced brackets")
                if not brackets:
                    return

    def _decode_run(self, decode: Decode[Decoded]) -> tuple[Decoded, int, bool] | None:
        """Decode as many whole elements as the buffer holds: (decoded, position after them, whether the array ended).

        None if the buffer ends within the first element.
        """
        self._buffer[self._position - 1] = ord("[")
        for end, following in self._cuts():
            # The last try takes everything; if the array ends here, the decoder reports characters after the list.
            length = end - self._position + (2 if following else 1)
            behind = self._buffer[end] if following else 0
            if following:
                self._buffer[end] = ord("]")
            try:
                decoded = self._decode(decode, length)
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if following:
                    self._buffer[end] = behind
                ended = self._list_length(error)
                if ended is not None:
                    return self._decode(decode, ended), self._position + ended - 1, True
                if "truncated" not in str(error) and (following or not self._may_be_incomplete(error)):
                    raise self._decode_error(error) from None
            else:
                return (decoded, following, False) if following else (decoded, self._end, True)
        return None

    def _decode(self, decode: Decode[Decoded], length: int) -> Decoded:
        with memoryview(self._buffer) as view:
            return decode(view[self._position - 1 : self._position - 1 + length])

    def _cuts(self) -> Iterator[tuple[int, int]]:
        """Places that look like a gap between two elements, the last first: (end of one, start of the next).

        Finally the end of the buffer, with 0 for the start of a next element.
        """
        end, width, tried = self._end, 2**12, 0
        while end > self._position and tried < _WRONG_CUTS:
            start = max(self._position, end - width)
            # A gap may straddle the border between two searched parts: look a little beyond the right border.
            gaps = BETWEEN_ELEMENTS.finditer(self._buffer, start, min(self._end, end + 256))
            for first, last in reversed([gap.span() for gap in gaps]):
                if first < end:
                    yield first + 1, last
                    tried += 1
            end, width = start, width * 4
        yield self._end, 0

    def _may_be_incomplete(self, error: Exception) -> bool:
        """Whether the decoder complains about a number that the end of the buffer may have cut in two."""
        match = _BYTE.search(str(error))
        return not self._ended and match is not None and self._position + int(match[1]) > self._end - _LONGEST_NUMBER

    def _list_length(self, error: Exception) -> int | None:
        """Length of the list that starts before the cursor, if the decoder complains about characters after it."""
        match = _BYTE.search(str(error))
        if match is None or "trailing characters" not in str(error):
            return None
        # The decoder reports the byte after the first character that does not belong to the list.
        start = self._position - 1
        length = len(self._buffer[start : start + int(match[1]) - 1].rstrip(b" \t\r\n"))
        return length if self._buffer[start + length - 1] == ord("]") else None

    def _key(self) -> str:
        if self._peek() != b'"':
            raise self._malformed("expected a key")
        try:
            key = msgspec.json.decode(self._match(_TOKEN), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed("expected a key") from None
        if self._take() != b":":
            self._position -= 1
            raise self._malformed("expected ':'")
        return key

    def _match(self, pattern: re.Pattern[bytes]) -> bytes:
        """The text of the next match of a pattern, consumed; reads on until there is one."""
        size = 2**16
        while True:
            match = pattern.search(self._buffer, self._position, self._end)
            if match and match.lastindex:
                self._position = match.end()
                return match[0]
            if self._ended:
                raise self._cut_off()
            size *= 2
            self._fill(size)

    def _window(self, size: int) -> bytes:
        self._fill(size)
        return bytes(self._buffer[self._position : min(self._end, self._position + size)])

    def _peek(self) -> bytes:
        """The next byte that is not white space, not consumed; empty at the end of the content."""
        while True:
            match = _SPACE.match(self._buffer, self._position, self._end)
            self._position = match.end() if match else self._position
            if self._position < self._end or self._ended:
                return bytes(self._buffer[self._position : min(self._end, self._position + 1)])
            self._fill(self._piece)

    def _take(self) -> bytes:
        """The next byte that is not white space, consumed."""
        byte = self._peek()
        if byte == b"":
            raise self._cut_off()
        self._position += 1
        return byte

    def _fill(self, size: int) -> None:
        """Read on until `size` bytes lie ahead of the cursor or the content ends."""
        if self._ended or self._end - self._position >= size:
            return
        if self._position + size > len(self._buffer):
            rest = self._buffer[self._position : self._end]
            if 1 + size > len(self._buffer):
                self._buffer = bytearray(1 + size)
            self._buffer[1 : 1 + len(rest)] = rest
            self._offset += self._position - 1
            self._position, self._end = 1, 1 + len(rest)
        with memoryview(self._buffer) as view:
            while self._end < self._position + size:
                count = self._content.read_into(view[self._end : self._position + size])
                if count == 0:
                    self._ended = True
                    break
                self._end += count

    def _seek(self, offset: int) -> None:
        """Continue at an offset of plain content."""
        self._content.raw.seek(offset)
        self._position = self._end = 1
        self._offset = offset - 1
        self._ended = False

    def _malformed(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged: {what} at byte {self._offset + self._position}.")

    def _cut_off(self) -> UserError:
        length = self._offset + self._end
        return UserError(f"{self._path} is cut off: it ends after {length} bytes within the JSON object. Get it again.")

    def _decode_error(self, error: Exception) -> UserError:
        text = str(error)
        match = _BYTE.search(text)
        if isinstance(error, UnicodeDecodeError) and (byte := self._not_utf8()) is not None:
            return UserError(
                f"{self._path} is not UTF-8: byte {self._offset + byte} is {self._buffer[byte]:#04x}. Save it as UTF-8."
            )
        if match is None:
            return UserError(f"{self._path} is damaged after byte {self._offset + self._position}: {text}.")
        place = self._offset + self._position - 1 + int(match[1])
        reason = text[: match.start()].strip().removeprefix("JSON is malformed: ")
        number = self._position - 1 + int(match[1])  # the place, or the one before it, in the buffer
        if _NOT_A_NUMBER.search(self._buffer, number - 2, number + 8):
            reason = "JSON knows no NaN or Infinity,"
        return UserError(f"{self._path} is damaged: {reason} at byte {place}.")

    def _not_utf8(self) -> int | None:
        """Place in the buffer of the first byte ahead that is not UTF-8. Decoders count from the start of a string."""
        try:
            self._buffer[self._position : self._end].decode("utf-8")
        except UnicodeDecodeError as error:
            return self._position + error.start
        return None
