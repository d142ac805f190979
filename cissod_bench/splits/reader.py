"""From any COCO-format file to NumPy columns, in bounded memory and at close to the parser's own speed.

Each piece of the file (`stream.py`) is decoded into typed structs whose numbers are all floats. Encoded again as
MessagePack such structs have one fixed length, so a structured NumPy type reads a whole piece at once: the detour costs
a tenth of converting the structs one by one.
"""

import gc
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.errors import UserError
from cissod_bench.files import sha256_file
from cissod_bench.splits.columns import Category, Columns, Int16, Int32, Int64, Strings
from cissod_bench.splits.content import box_hashes, content_digest
from cissod_bench.splits.health import box_flags
from cissod_bench.splits.stream import PIECE, JsonObject, opened

FileNames = Literal["file_name", "coco_url"]
"""Where an image's file is named. LVIS names it in `coco_url` only, whose last two parts are folder and file."""

_NAN = float("nan")
_STEP = 1 << 19  # elements by which a column grows
_LARGEST_ID = 2**53  # integers up to here are exact as floats
_NOT_JSON_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)\b', re.DOTALL)
_ITEM = re.compile(r"`\$\[(\d+)\]\.?([^`]*)`")


class _Box(msgspec.Struct, gc=False):
    image_id: float
    category_id: float
    bbox: tuple[float, float, float, float]
    id: float = -1.0
    iscrowd: float = 0.0
    area: float = _NAN


class _LooseBox(msgspec.Struct, gc=False):
    """A box with anything in its place that official files and their copies have there."""

    image_id: float
    category_id: float
    bbox: list[float | str | None] | None = None
    id: float | None = None
    iscrowd: float | bool | None = None
    area: float | str | None = None


class _Image(msgspec.Struct, gc=False):
    id: float
    file_name: str | None = None
    coco_url: str | None = None
    width: float | None = None
    height: float | None = None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


class _Category(msgspec.Struct):
    id: int
    name: str
    frequency: str | None = None
    image_count: int | None = None
    instance_count: int | None = None


def _record_type() -> tuple[np.dtype[np.void], int]:
    """Layout of one `_Box` in MessagePack, and the place of its first coordinate.

    Key, value, key, value: a key is a byte and its letters, a float a byte and eight big-endian ones.
    """
    names, offsets, end, corners = [], [], 1, 0
    for field in msgspec.structs.fields(_Box):
        end += 1 + len(field.name)
        if field.name == "bbox":
            corners = end + 2
            end += 1 + 4 * 9
        else:
            names.append(field.name)
            offsets.append(end + 1)
            end += 9
    formats = [">f8"] * len(names)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end}), corners


_RECORD, _CORNERS = _record_type()


@dataclass(frozen=True)
class Source:
    """The file that was read: what `source.json` tells about it."""

    name: str
    size: int
    sha256: str


def read_coco(
    path: Path,
    *,
    file_names: FileNames = "file_name",
    progress: Callable[[int], None] | None = None,
    piece: int = PIECE,
) -> tuple[Columns, Source]:
    """Read an annotation file in COCO form, plain or compressed with gzip or xz.

    Unknown keys are passed over, their values checked for no more than brackets and quotes.
    Boxes that cannot be used are flagged (`health.py`), not dropped.

    Args:
        path: the file.
        file_names: which field names an image's file; the other one is used where it is missing.
        progress: called with the number of raw bytes read so far.
        piece: bytes decoded at once.

    Raises:
        UserError: the file cannot be read, is damaged or cut off, is not in COCO form, has an item of the wrong
            type, an image without file name, or an id twice or beyond 2**53.
    """
    parts = _Parts(path, file_names)
    try:
        # The digest is computed beside the reading: the system's cache serves the file twice.
        with opened(path) as (read_into, bytes_read), ThreadPoolExecutor(1) as thread, _no_garbage_collection():
            digest = thread.submit(sha256_file, path)
            document = JsonObject(read_into, path, piece)
            for key in document.keys():  # noqa: SIM118, `keys` consumes the document
                reader = {"images": parts.images, "annotations": parts.boxes, "categories": parts.categories}.get(key)
                if reader is None:
                    document.skip()
                    continue
                parts.begin(key)
                for count in document.elements(reader):
                    parts.counts[key] += count
                    if progress:
                        progress(bytes_read())
            source = Source(path.name, path.stat().st_size, digest.result())
    except FileNotFoundError:
        raise UserError(f"There is no annotation file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; an annotation file is needed.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return parts.columns(), source


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of young objects that hold no cycles make the collector run for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Growing:
    """A column that grows in place: the system moves pages, so no second copy is ever in memory."""

    def __init__(self, dtype: npt.DTypeLike, width: int = 1) -> None:
        self._array = np.empty(0, dtype)
        self._width = width
        self._used = 0

    def append(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert values to the column's type at its end; returns that part, valid until the next call."""
        start, self._used = self._used, self._used + values.size
        if self._used > self._array.size:
            # In small steps, since NumPy fills what is new with zeros; moving pages costs nothing.
            self._array.resize(self._used + _STEP * self._width, refcheck=False)
        part = self._array[start : self._used].reshape(values.shape)
        with np.errstate(invalid="ignore"):
            np.copyto(part, values, casting="unsafe")
        return part

    def finish(self) -> npt.NDArray[Any]:
        self._array.resize(self._used, refcheck=False)
        array, self._array = self._array, np.empty(0, self._array.dtype)
        return array if self._width == 1 else array.reshape(-1, self._width)


class _Parts:
    """Collects the three lists of a COCO file, in whatever order they come."""

    def __init__(self, path: Path, file_names: FileNames) -> None:
        self._path = path
        self._file_names = file_names
        self.counts: dict[str, int] = {}
        self._image_ids = _Growing(np.int64)
        self._sizes = _Growing(np.int32, 2)
        self._names: list[str] = []
        self._extras: dict[int, str] = {}
        self._categories: list[_Category] = []
        self._box_ids = _Growing(np.int64)
        self._box_images = _Growing(np.int64)
        self._box_categories = _Growing(np.int32)
        self._crowd = _Growing(np.bool_)
        self._corners = _Growing(np.float64, 4)
        self._areas = _Growing(np.float64)
        self._decode_boxes = msgspec.json.Decoder(list[_Box]).decode
        self._decode_loose_boxes = msgspec.json.Decoder(list[_LooseBox]).decode
        self._decode_images = msgspec.json.Decoder(list[_Image]).decode
        self._encode = msgspec.msgpack.Encoder().encode_into
        self._encoded = bytearray()

    def begin(self, key: str) -> None:
        if key in self.counts:
            raise UserError(f"{self._path} holds the list {key!r} twice.")
        self.counts[key] = 0

    def boxes(self, text: memoryview) -> int:
        """Take in a JSON list of annotations; returns their number."""
        try:
            structs = self._decode_boxes(text)
        except (msgspec.ValidationError, msgspec.DecodeError):
            structs = self._loose_boxes(text)
        self._encode(structs, self._encoded)
        count = len(structs)
        start = len(self._encoded) - count * _RECORD.itemsize
        records = np.frombuffer(self._encoded, _RECORD, count, start)
        corners: npt.NDArray[Any] = np.ndarray(
            (count, 4), ">f8", self._encoded, start + _CORNERS, (_RECORD.itemsize, 9)
        )
        self._append_ids(self._box_ids, records["id"], "annotations", "id")
        self._append_ids(self._box_images, records["image_id"], "annotations", "image_id")
        self._append_ids(self._box_categories, records["category_id"], "annotations", "category_id")
        self._crowd.append(records["iscrowd"] != 0)
        self._corners.append(corners)
        self._areas.append(records["area"])
        return len(structs)

    def _loose_boxes(self, view: memoryview) -> list[_Box]:
        """Decode what the strict decoder refused: null, missing or non-finite coordinates, true and false as crowd."""
        text = bytes(view)
        if b"NaN" in text or b"Infinity" in text:
            # Of the same length, so that places in error messages stay right.
            text = _NOT_JSON_NUMBER.sub(lambda match: match[0] if match[0][:1] == b'"' else _blank(match[0]), text)
        try:
            loose = self._decode_loose_boxes(text)
        except msgspec.ValidationError as error:
            raise self._item_error("annotations", error) from None
        return [self._strict(box, number) for number, box in enumerate(loose)]

    def _strict(self, box: _LooseBox, number: int) -> _Box:
        corners = [_number(value) for value in box.bbox or (None,) * 4]
        if len(corners) != 4 or any(corner is None for corner in corners) or (area := _number(box.area)) is None:
            item = f"annotations[{self.counts['annotations'] + number}]"
            raise UserError(f"{self._path}: {item}.bbox must be four numbers and area one.")
        box_id = -1.0 if box.id is None else box.id
        x, y, width, height = (corner for corner in corners if corner is not None)
        return _Box(box.image_id, box.category_id, (x, y, width, height), box_id, float(box.iscrowd or 0), area)

    def images(self, text: memoryview) -> int:
        """Take in a JSON list of images; returns their number."""
        try:
            structs = self._decode_images(text)
        except msgspec.ValidationError as error:
            raise self._item_error("images", error) from None
        first = self.counts["images"]
        self._append_ids(self._image_ids, np.array([image.id for image in structs]), "images", "id")
        sizes = np.array([(image.width or 0, image.height or 0) for image in structs])
        self._check(((sizes >= 0) & (sizes < 2**31)).all(axis=1), "images", "width or height", "is out of range")
        self._sizes.append(sizes)
        if self._file_names == "file_name" and all(image.file_name for image in structs):
            self._names += [image.file_name for image in structs if image.file_name]
        else:
            self._names += [self._file_name(image, number) for number, image in enumerate(structs, first)]
        for number, image in enumerate(structs, first):
            if image.neg_category_ids is not None or image.not_exhaustive_category_ids is not None:
                self._extras[number] = msgspec.json.encode(
                    {
                        "neg_category_ids": image.neg_category_ids or [],
                        "not_exhaustive_category_ids": image.not_exhaustive_category_ids or [],
                    }
                ).decode()
        return len(structs)

    def _file_name(self, image: _Image, number: int) -> str:
        url = "/".join(image.coco_url.rsplit("/", 2)[-2:]) if image.coco_url else None
        name = (url or image.file_name) if self._file_names == "coco_url" else (image.file_name or url)
        if not name:
            raise UserError(f"{self._path}: images[{number}] has neither file_name nor coco_url.")
        return name

    def categories(self, text: memoryview) -> int:
        """Take in a JSON list of classes; returns their number."""
        try:
            structs = msgspec.json.decode(text, type=list[_Category])
        except msgspec.ValidationError as error:
            raise self._item_error("categories", error) from None
        self._categories += structs
        return len(structs)

    def columns(self) -> Columns:
        """Put everything together once the whole file has been read."""
        for key in ("images", "annotations", "categories"):
            if key not in self.counts:
                raise UserError(f"{self._path} is not a COCO annotation file: it has no list {key!r}.")
        categories = self._sorted_categories()
        image_ids: Int64 = self._image_ids.finish()
        order = np.argsort(image_ids, kind="stable")
        image_ids = image_ids[order]
        repeated = image_ids[1:][image_ids[1:] == image_ids[:-1]]
        if len(repeated):
            raise UserError(f"{self._path}: image id {repeated[0]} occurs more than once ({len(repeated)} such).")
        sizes = self._sizes.finish()[order].astype(np.int32)
        widths, heights = np.ascontiguousarray(sizes[:, 0]), np.ascontiguousarray(sizes[:, 1])
        names = Strings.of([self._names[row] for row in order.tolist()])
        extras = Strings.of(
            [self._extras.get(row, "") for row in order.tolist()] if self._extras else [""] * len(order)
        )
        self._names, self._extras = [], {}

        raw_images: Int64 = self._box_images.finish()
        raw_categories: Int32 = self._box_categories.finish()
        corners, box_ids = self._corners.finish(), self._box_ids.finish()
        hashes = box_hashes(raw_images, raw_categories, corners)
        box_image: Int32 = _positions(image_ids, raw_images, np.int32)
        del raw_images
        category_ids = np.array([category.id for category in categories], np.int64)
        box_label: Int16 = _positions(category_ids, raw_categories, np.int16)
        del raw_categories
        areas, crowd = self._areas.finish(), self._crowd.finish()
        missing = ~np.isfinite(areas)
        with np.errstate(over="ignore", invalid="ignore"):
            areas[missing] = corners[missing, 2] * corners[missing, 3]
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
            crowd=crowd,
            boxes=corners,
            areas=areas,
            health=box_flags(corners, box_image, box_label, hashes, box_ids, widths, heights),
            content=content_digest(
                image_ids, widths, heights, names, extras, categories, hashes, box_ids, crowd, areas
            ),
        )

    def _sorted_categories(self) -> tuple[Category, ...]:
        if not self._categories:
            raise UserError(f"{self._path}: the list 'categories' is empty.")
        if len(self._categories) >= 2**15:
            raise UserError(f"{self._path} has {len(self._categories)} classes; at most {2**15 - 1} are supported.")
        result = tuple(
            Category(entry.id, entry.name, entry.frequency, entry.image_count, entry.instance_count)
            for entry in sorted(self._categories, key=lambda entry: entry.id)
        )
        for attribute in ("id", "name"):
            values = [getattr(category, attribute) for category in result]
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise UserError(f"{self._path}: class {attribute} {repeated[0]!r} occurs more than once.")
        if not all(abs(category.id) < 2**31 for category in result):
            raise UserError(f"{self._path}: a class id is beyond 2**31.")
        return result

    def _append_ids(self, column: _Growing, values: npt.NDArray[Any], key: str, field: str) -> None:
        """Append floats that must be whole numbers within the column's range, and exact as floats."""
        part = column.append(values)
        limit = min(_LARGEST_ID, np.iinfo(part.dtype).max)
        self._check(
            (part == values) & (part < limit) & (part > -limit), key, field, f"is no whole number below {limit}"
        )

    def _check(self, valid: Any, key: str, field: str, problem: str) -> None:
        if not valid.all():
            number = self.counts[key] + int(np.argmin(valid))
            raise UserError(f"{self._path}: {key}[{number}].{field} {problem}.")

    def _item_error(self, key: str, error: msgspec.ValidationError) -> UserError:
        match = _ITEM.search(str(error))
        if match is None:
            return UserError(f"{self._path}: {key}: {error}.")
        number = self.counts[key] + int(match[1])
        field = f".{match[2]}" if match[2] else ""
        what = str(error)[: match.start()].removesuffix(" - at ").strip().replace("`", "")
        return UserError(f"{self._path}: {key}[{number}]{field}: {what}.")


def _blank(text: bytes) -> bytes:
    return b'""'.ljust(len(text))


def _number(value: float | str | None) -> float | None:
    """A float, NaN for null and what `_blank` has put in the place of NaN; None for other text."""
    if value is None or value == "":
        return _NAN
    return None if isinstance(value, str) else value


def _positions(ascending: Int64, values: npt.NDArray[Any], dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    """Position of each value in an ascending array of unique numbers, -1 where it is not there."""
    positions = np.full(len(values), -1, dtype)
    if not len(ascending):
        return positions
    for start in range(0, len(values), 1 << 20):
        part = slice(start, start + (1 << 20))
        found = np.searchsorted(ascending, values[part])
        found[found == len(ascending)] = 0
        positions[part] = np.where(ascending[found] == values[part], found, -1)
    return positions
