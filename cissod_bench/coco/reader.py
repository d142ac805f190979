"""From any COCO-format file to NumPy columns, in bounded memory and at close to the parser's own speed.

`stream.py` cuts the file into pieces, `decode.py` makes arrays of one piece, for a large file in several processes at
once (`parallel.py`); here the pieces become columns. The result does not depend on the pieces or the processes.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.coco.checks import box_flags
from cissod_bench.coco.columns import Category, Columns, Int16, Int32, Int64, Strings
from cissod_bench.coco.decode import Boxes, Decoder, FileNames, Images
from cissod_bench.coco.digest import Sums, added, content_digest
from cissod_bench.coco.hashing import FileDigest
from cissod_bench.coco.names import clean_name
from cissod_bench.coco.parallel import Workers, usable_cores
from cissod_bench.coco.stream import PIECE, Content, JsonObject, opened
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file

SMALLEST_SHARED = 256 * 2**20
"""Smaller files are read by this process alone, since another one takes a while to start."""

_MOST_PROCESSES = 4  # more would only wait for this process to join their pieces
_STEP = 1 << 19  # elements by which a column grows at most
_BLOCK = 1 << 16
_BYTES_OF_A_BOX = 160  # in a file without masks, about
_LARGEST_TABLE = 1 << 24


Elements = Boxes | Images | list[Category]


@dataclass(frozen=True)
class SourceFile:
    """The file that was read, as `source.json` describes it.

    Attributes:
        name: name of the file.
        size: in bytes.
        digest: returns the SHA-256 and waits for it if necessary; so it is not part of the comparison of two files.
    """

    name: str
    size: int
    digest: Callable[[], str] = field(compare=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal.

        Raises:
            UserError: it could not be computed.
        """
        return self.digest()


Read = Callable[[Path], tuple[Columns, SourceFile]]
"""Reads one annotation file: `read_coco`, or something before it, such as a cache or a progress bar."""


def read_coco(
    path: Path,
    *,
    file_names: FileNames = "file_name",
    progress: Callable[[int], None] | None = None,
    processes: int | None = None,
    piece: int = PIECE,
) -> tuple[Columns, SourceFile]:
    """Read an annotation file as `read_columns` does, and compute its SHA-256 meanwhile; same arguments.

    Raises:
        UserError: as `read_columns`.
    """
    with _opened(path) as content, ExitStack() as stack:
        status = os.fstat(content.raw.fileno())
        large = status.st_size >= SMALLEST_SHARED
        # The digest is computed while the file is read, so that the system's cache serves both. For a large file it
        # is computed afterwards, in the background, since decoding takes all cores.
        hashed = None if large else stack.enter_context(ThreadPoolExecutor(1)).submit(sha256_file, path)
        lists = _read_lists(content, path, file_names, processes, piece, progress)
        if hashed:
            hashed.result()  # its errors are errors of reading
        digest = hashed.result if hashed else FileDigest(path, content.raw, status)
    return lists.columns(), SourceFile(path.name, status.st_size, digest)


def read_columns(
    path: Path,
    *,
    file_names: FileNames = "file_name",
    progress: Callable[[int], None] | None = None,
    processes: int | None = None,
    piece: int = PIECE,
) -> Columns:
    """Read an annotation file in COCO form, plain or compressed with gzip or xz.

    Unknown keys are skipped; of their values only brackets and quotes are checked. Boxes that cannot be used are
    flagged (`checks.py`), not dropped.

    Args:
        path: the file.
        file_names: the field that names an image's file; where it is missing the other one is used.
        progress: called with the number of raw bytes read so far.
        processes: number of processes that decode a plain file; 1: only this one. Default: one for each usable core, at
            most 4, and 1 for a file below 256 MB. The columns do not depend on it.
        piece: bytes decoded at a time.

    Raises:
        UserError: the file cannot be read, is damaged, cut off or not in COCO form, has an item of the wrong type, an
            image without a file name, or an id that is repeated or beyond 64 bits; or a worker process was killed.
    """
    with _opened(path) as content:
        lists = _read_lists(content, path, file_names, processes, piece, progress)
    return lists.columns()


@contextmanager
def _opened(path: Path) -> Iterator[Content]:
    """Open an annotation file; system errors become `UserError`s."""
    try:
        with opened(path) as content:
            yield content
    except FileNotFoundError:
        raise UserError(f"There is no annotation file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; an annotation file is needed.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_lists(
    content: Content,
    path: Path,
    file_names: FileNames,
    processes: int | None,
    piece: int,
    progress: Callable[[int], None] | None,
) -> "_Lists":
    """Decode all content. On return the worker processes and their memory are gone."""
    size = os.fstat(content.raw.fileno()).st_size
    if processes is None:
        processes = min(usable_cores(), _MOST_PROCESSES) if size >= SMALLEST_SHARED else 1
    lists = _Lists(path, size)
    decoder = Decoder(path, file_names)
    with ExitStack() as stack:
        workers = None
        if processes > 1 and content.plain:
            with suppress(OSError):  # if the system has no room for them, this process reads alone
                workers = stack.enter_context(Workers(content.raw.fileno(), path, file_names, processes, piece))
        stack.enter_context(no_garbage_collection())
        document = JsonObject(content, path, piece)
        for key in document.keys():  # noqa: SIM118, `keys` consumes the document
            for elements in _elements(key, document, lists, decoder, workers):
                lists.add(elements)
                if progress:
                    progress(content.raw.tell())
    return lists


def _elements(
    key: str, document: JsonObject, lists: "_Lists", decoder: Decoder, workers: Workers | None
) -> Iterator[Elements]:
    """The elements of the next value if it is one of the three lists; any other value is skipped."""
    decode: Callable[[memoryview, int], Elements]
    if key == "images":
        decode = decoder.images
    elif key == "annotations":
        decode = decoder.boxes
    elif key == "categories":
        decode, workers = decoder.categories, None
    else:
        document.skip()
        return
    lists.begin(key)

    def ahead(offset: int) -> Iterable[tuple[Elements, int]]:
        return workers.decoded(key, offset) if workers and workers.ready() else ()

    yield from document.elements(lambda text: decode(text, lists.counts[key]), ahead)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of new objects without cycles would make the collector run for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Growing:
    """A column that grows in place: the system moves its pages, so that there is never a second copy in memory.

    Reserved room that is not used takes no memory; growing from nothing in small steps would fragment it.
    """

    def __init__(self, dtype: npt.DTypeLike, width: int = 1, room: int = 0) -> None:
        self._array = np.empty(room * width, dtype)
        self._width = width
        self._used = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        start, self._used = self._used, self._used + values.size
        if self._used > self._array.size:
            # In small steps, since NumPy fills new elements with zeros; moving pages costs nothing.
            step = min(_STEP * self._width, self._used)
            self._array.resize(self._used + step, refcheck=False)
        self._array[start : self._used] = values.reshape(-1)

    def finish(self) -> npt.NDArray[Any]:
        """The finished column; nothing can be appended afterwards."""
        self._array.resize(self._used, refcheck=False)
        array, self._array = self._array, np.empty(0, self._array.dtype)
        return array if self._width == 1 else array.reshape(-1, self._width)


class _GrowingStrings:
    """`Strings` that grow."""

    def __init__(self) -> None:
        self._data = _Growing(np.uint8)
        self._ends = _Growing(np.int64)
        self._length = 0

    def append(self, strings: Strings) -> None:
        self._data.append(strings.data)
        self._ends.append(strings.ends + self._length)
        self._length += len(strings.data)

    def finish(self) -> Strings:
        return Strings(self._data.finish(), self._ends.finish())


class _Lists:
    """Collects the three lists of a COCO file, in any order."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        room = size // _BYTES_OF_A_BOX
        self.counts: dict[str, int] = {}
        self._image_ids = _Growing(np.int64)
        self._widths = _Growing(np.int32)
        self._heights = _Growing(np.int32)
        self._file_names = _GrowingStrings()
        self._extras = _GrowingStrings()
        self._categories: list[Category] = []
        self._box_ids = _Growing(np.int64, room=room)
        self._box_images = _Growing(np.int64, room=room)
        self._box_categories = _Growing(np.int32, room=room)
        self._crowd = _Growing(np.bool_, room=room)
        self._corners = _Growing(np.float64, 4, room)
        self._areas = _Growing(np.float64, room=room)
        self._ignored = _Growing(np.bool_, room=room)
        self._hashes = _Growing(np.uint64, room=room)
        self._sums: Sums = (0, 0)

    def begin(self, key: str) -> None:
        """Start a list."""
        if key in self.counts:
            raise UserError(f"{self._path} holds the list {key!r} twice. Remove one of them.")
        self.counts[key] = 0

    def add(self, elements: Elements) -> None:
        """Append elements to the current list."""
        if isinstance(elements, Boxes):
            self.counts["annotations"] += len(elements)
            self._box_ids.append(elements.ids)
            self._box_images.append(elements.image_ids)
            self._box_categories.append(elements.category_ids)
            self._crowd.append(elements.crowd)
            self._corners.append(elements.corners)
            self._areas.append(elements.areas)
            self._ignored.append(elements.ignored)
            self._hashes.append(elements.hashes)
            self._sums = added(self._sums, elements.sums)
        elif isinstance(elements, Images):
            self.counts["images"] += len(elements)
            self._image_ids.append(elements.ids)
            self._widths.append(elements.widths)
            self._heights.append(elements.heights)
            self._file_names.append(elements.file_names)
            self._extras.append(elements.extras)
        else:
            self.counts["categories"] += len(elements)
            self._categories += elements

    def columns(self) -> Columns:
        """Join everything once the whole file has been read."""
        for key in ("images", "annotations", "categories"):
            if key not in self.counts:
                raise UserError(f"{self._path} is not a COCO annotation file: it has no list {key!r}.")
        categories = self._sorted_categories()
        image_ids: Int64 = self._image_ids.finish()
        widths, heights = self._widths.finish(), self._heights.finish()
        names, extras = self._file_names.finish(), self._extras.finish()
        if not (image_ids[1:] > image_ids[:-1]).all():
            order = np.argsort(image_ids, kind="stable")
            image_ids, widths, heights = image_ids[order], widths[order], heights[order]
            names, extras = names.rows(order), extras.rows(order)
            repeated = image_ids[1:][image_ids[1:] == image_ids[:-1]]
            if len(repeated):
                raise UserError(f"{self._path}: image id {repeated[0]} occurs more than once ({len(repeated)} such).")
        box_image: Int32 = _positions(image_ids, self._box_images.finish(), np.int32)
        category_ids = np.array([category.id for category in categories], np.int64)
        box_label: Int16 = _positions(category_ids, self._box_categories.finish(), np.int16)
        corners, box_ids = self._corners.finish(), self._box_ids.finish()
        return Columns(
            image_ids=image_ids,
            widths=widths,
            heights=heights,
            file_names=names,
            extras=extras,
            categories=categories,
            box_ids=box_ids,
            box_image=box_image,
            box_label=box_label,
            crowd=self._crowd.finish(),
            boxes=corners,
            areas=self._areas.finish(),
            flags=box_flags(
                corners,
                box_image,
                box_label,
                self._hashes.finish(),
                box_ids,
                widths,
                heights,
                self._ignored.finish(),
            ),
            digest=content_digest(
                image_ids, widths, heights, names, extras, categories, self.counts["annotations"], self._sums
            ),
        )

    def _sorted_categories(self) -> tuple[Category, ...]:
        if not self._categories:
            raise UserError(f"{self._path}: the list 'categories' is empty.")
        if len(self._categories) >= 2**15:
            raise UserError(f"{self._path} has {len(self._categories)} classes; at most {2**15 - 1} are supported.")
        result = tuple(sorted(self._categories, key=lambda category: category.id))
        by_name: dict[str, str] = {}
        for category in result:
            name = clean_name(category.name)
            if not name:
                raise UserError(f"{self._path}: the class with id {category.id} has an empty name. Give it one.")
            other = by_name.setdefault(name, category.name)
            if other != category.name:
                raise UserError(
                    f"{self._path}: the classes {other!r} and {category.name!r} differ in white space or in their "
                    "Unicode form only. Give one of them another name, or make one class of both."
                )
        for attribute in ("id", "name"):
            values = [getattr(category, attribute) for category in result]
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise UserError(f"{self._path}: class {attribute} {repeated[0]!r} occurs more than once.")
        if not all(abs(category.id) < 2**31 for category in result):
            raise UserError(f"{self._path}: a class id is beyond 2**31.")
        return result


def _positions(ascending: Int64, values: npt.NDArray[Any], dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    """Position of each value in an ascending array of unique numbers, -1 where it is missing."""
    positions = np.full(len(values), -1, dtype)
    if not len(ascending):
        return positions
    lowest, span = int(ascending[0]), int(ascending[-1]) - int(ascending[0]) + 1
    if span > _LARGEST_TABLE:
        for start in range(0, len(values), _BLOCK):
            part = slice(start, start + _BLOCK)
            found = np.searchsorted(ascending, values[part])
            found[found == len(ascending)] = 0
            positions[part] = np.where(ascending[found] == values[part], found, -1)
        return positions
    # The ids of all known data sets are dense enough for a look-up table.
    table = np.full(span + 1, -1, dtype)  # the last entry for values outside
    table[ascending - lowest] = np.arange(len(ascending))
    for start in range(0, len(values), _BLOCK):
        part = slice(start, start + _BLOCK)
        entry = values[part].astype(np.int64) - lowest
        positions[part] = table[np.where((entry >= 0) & (entry < span), entry, span)]
    return positions
