"""Decoding one piece of an annotation file, a JSON list of some thousand images or boxes, into NumPy arrays.

Boxes are decoded into typed structs whose numbers are all floats. Encoded again as MessagePack, such structs have a
fixed length, so that a structured NumPy type reads a whole piece in one step, ten times as fast as converting the
structs one by one. Whatever can be computed for a box without the rest of the file is computed here, while the piece
is in the processor's cache and, for a large file, on another core (`parallel.py`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Bool, Category, Float64, Int32, Int64, Strings, UInt64
from cissod_bench.coco.digest import Sums, box_hashes, box_sums
from cissod_bench.errors import UserError

FileNames = Literal["file_name", "coco_url", "none"]
"""Where the name of an image's file stands. LVIS has it in `coco_url` only, whose last two parts are folder and file.
`none`: names do not matter; they may be missing and are left empty."""

_NAN = float("nan")
_EXACT = 2**53  # integers below are exact as floats
_NOT_JSON_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)\b', re.DOTALL)
_ITEM = re.compile(r"`\$\[(\d+)\]\.?([^`]*)`")


class _Box(msgspec.Struct, gc=False):
    image_id: float
    category_id: float
    bbox: tuple[float, float, float, float]
    id: float = -1.0
    iscrowd: float = 0.0
    area: float = _NAN
    ignore: float = 0.0


class _BoxIds(msgspec.Struct, gc=False):
    """The ids of a box, exact where they are beyond what a float holds."""

    image_id: int | float
    id: int | float | None = None


class _LooseBox(msgspec.Struct, gc=False):
    """A box with everything that official files and their copies have in place of a number."""

    image_id: float
    category_id: float
    bbox: list[float | str | None] | None = None
    id: float | None = None
    iscrowd: float | bool | None = None
    area: float | str | None = None
    ignore: float | bool | None = None


class _Image(msgspec.Struct, gc=False):
    id: int | float
    file_name: str | None = None
    coco_url: str | None = None
    width: float | None = None
    height: float | None = None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


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
class Boxes:
    """Boxes in the order of the file; `image_ids` and `category_ids` as in the file, the rest as in `Columns`.

    Attributes:
        ignored: those with `ignore`, bool `[M]`.
        hashes: `digest.box_hashes` of them.
        sums: `digest.box_sums` of them.
    """

    ids: Int64
    image_ids: Int64
    category_ids: Int32
    crowd: Bool
    corners: Float64
    areas: Float64
    ignored: Bool
    hashes: UInt64
    sums: Sums

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Images:
    """Images in the order of the file, columns as in `Columns`."""

    ids: Int64
    widths: Int32
    heights: Int32
    file_names: Strings
    extras: Strings

    def __len__(self) -> int:
        return len(self.ids)


class Decoder:
    """Decodes pieces of one file. Every method takes a JSON list and the number of elements before it in the file.

    Args:
        path: named in the messages.
        file_names: which field names an image's file; the other one is used where it is missing.
    """

    def __init__(self, path: Path, file_names: FileNames) -> None:
        self._path = path
        self._file_names = file_names
        self._decode_boxes = msgspec.json.Decoder(list[_Box]).decode
        self._decode_loose_boxes = msgspec.json.Decoder(list[_LooseBox]).decode
        self._decode_box_ids = msgspec.json.Decoder(list[_BoxIds]).decode
        self._decode_images = msgspec.json.Decoder(list[_Image]).decode
        self._decode_categories = msgspec.json.Decoder(list[Category]).decode
        self._encode = msgspec.msgpack.Encoder().encode_into
        self._encoded = bytearray()

    def boxes(self, text: memoryview, first: int) -> Boxes:
        """Decode a JSON list of annotations.

        Raises:
            UserError: an item of the wrong type, or an id that is not a whole number in range.
            msgspec.DecodeError: not a JSON list.
        """
        try:
            structs = self._decode_boxes(text)
        except (msgspec.ValidationError, msgspec.DecodeError):
            structs = self._loose_boxes(text, first)
        self._encode(structs, self._encoded)
        count = len(structs)
        start = len(self._encoded) - count * _RECORD.itemsize
        records = np.frombuffer(self._encoded, _RECORD, count, start)
        places = start + _CORNERS, (_RECORD.itemsize, 9)
        corners = np.ndarray[Any, Any]((count, 4), ">f8", self._encoded, *places).astype(np.float64)
        fields = {name: records[name].astype(np.float64) for name in _RECORD.names or ()}
        if max(np.abs(fields[name]).max(initial=0) for name in ("id", "image_id")) >= _EXACT:
            exact = self._decode_box_ids(_without_nan(text))
            fields["id"] = _numbers([-1 if box.id is None else box.id for box in exact])
            fields["image_id"] = _numbers([box.image_id for box in exact])
        ids = self._whole(fields["id"], np.int64, "annotations", "id", first)
        image_ids = self._whole(fields["image_id"], np.int64, "annotations", "image_id", first)
        category_ids = self._whole(fields["category_id"], np.int32, "annotations", "category_id", first)
        crowd, areas = fields["iscrowd"] != 0, fields["area"]
        missing = np.flatnonzero(~np.isfinite(areas))
        with np.errstate(over="ignore", invalid="ignore"):
            areas[missing] = corners[missing, 2] * corners[missing, 3]
        hashes = box_hashes(image_ids, category_ids, corners)
        sums = box_sums(hashes, ids, crowd, areas)
        return Boxes(ids, image_ids, category_ids, crowd, corners, areas, fields["ignore"] != 0, hashes, sums)

    def images(self, text: memoryview, first: int) -> Images:
        """Decode a JSON list of images.

        Raises:
            UserError: an item of the wrong type or out of range, or an image without file name.
            msgspec.DecodeError: not a JSON list.
        """
        try:
            structs = self._decode_images(text)
        except msgspec.ValidationError as error:
            raise self._item_error("images", error, first) from None
        ids = self._whole(_numbers([image.id for image in structs]), np.int64, "images", "id", first)
        sizes = np.array([(image.width, image.height) for image in structs], np.float64)
        sizes[np.isnan(sizes)] = 0  # None
        valid = (sizes >= 0) & (sizes < 2**31)
        self._check(valid[:, 0] & valid[:, 1], "images", "width or height", "is out of range", first)
        widths, heights = np.ascontiguousarray(sizes.T, np.int32)
        names = [image.file_name for image in structs if image.file_name]
        if self._file_names == "none":
            names = [""] * len(structs)
        elif self._file_names != "file_name" or len(names) < len(structs):
            names = [self._file_name(image, number) for number, image in enumerate(structs, first)]
        if "\0" in "".join(names):
            number = next(number for number, name in enumerate(names, first) if "\0" in name)
            raise UserError(f"{self._path}: images[{number}].file_name holds a NUL character. Correct the name.")
        extras = [
            "" if image.neg_category_ids is None and image.not_exhaustive_category_ids is None else _federated(image)
            for image in structs
        ]
        return Images(ids, widths, heights, Strings.of(names), Strings.of(extras))

    def categories(self, text: memoryview, first: int) -> list[Category]:
        """Decode a JSON list of classes.

        Raises:
            UserError: an item of the wrong type.
            msgspec.DecodeError: not a JSON list.
        """
        try:
            structs = self._decode_categories(text)
        except msgspec.ValidationError as error:
            raise self._item_error("categories", error, first) from None
        return structs

    def _loose_boxes(self, view: memoryview, first: int) -> list[_Box]:
        """Decode what the strict decoder refuses: null, missing or non-finite coordinates, a boolean `iscrowd`."""
        try:
            loose = self._decode_loose_boxes(_without_nan(view))
        except msgspec.ValidationError as error:
            raise self._item_error("annotations", error, first) from None
        return [self._strict(box, number) for number, box in enumerate(loose, first)]

    def _strict(self, box: _LooseBox, number: int) -> _Box:
        corners = [_number(value) for value in box.bbox or (None,) * 4]
        if len(corners) != 4 or any(corner is None for corner in corners) or (area := _number(box.area)) is None:
            raise UserError(f"{self._path}: annotations[{number}].bbox must be four numbers and area one.")
        box_id = -1.0 if box.id is None else box.id
        x, y, width, height = (corner for corner in corners if corner is not None)
        crowd, ignore = float(box.iscrowd or 0), float(box.ignore or 0)
        return _Box(box.image_id, box.category_id, (x, y, width, height), box_id, crowd, area, ignore)

    def _file_name(self, image: _Image, number: int) -> str:
        url = "/".join(image.coco_url.rsplit("/", 2)[-2:]) if image.coco_url else None
        name = (url or image.file_name) if self._file_names == "coco_url" else (image.file_name or url)
        if not name:
            raise UserError(f"{self._path}: images[{number}] has neither file_name nor coco_url.")
        return name

    def _whole(
        self, values: npt.NDArray[Any], dtype: type[np.signedinteger[Any]], key: str, field: str, first: int
    ) -> npt.NDArray[Any]:
        """Numbers as integers: they must be whole, within the type's range and, if they are floats, exact."""
        with np.errstate(invalid="ignore"):
            whole = values.astype(dtype)
        limit = np.iinfo(dtype).max if values.dtype.kind == "i" else min(_EXACT, np.iinfo(dtype).max)
        valid = (whole == values) & (np.abs(values) < limit)
        self._check(valid, key, field, f"must be a whole number below {limit}", first)
        return whole

    def _check(self, valid: Bool, key: str, field: str, problem: str, first: int) -> None:
        if not valid.all():
            raise UserError(f"{self._path}: {key}[{first + int(np.argmin(valid))}].{field} {problem}.")

    def _item_error(self, key: str, error: msgspec.ValidationError, first: int) -> UserError:
        match = _ITEM.search(str(error))
        if match is None:
            return UserError(f"{self._path}: {key}: {error}.")
        field = f".{match[2]}" if match[2] else ""
        what = str(error)[: match.start()].removesuffix(" - at ").strip().replace("`", "")
        hint = "; a number has no quotes" if what.endswith("float, got str") else ""
        return UserError(f"{self._path}: {key}[{first + int(match[1])}]{field}: {what}{hint}.")


def _federated(image: _Image) -> str:
    """LVIS's federated fields as JSON."""
    fields = {
        "neg_category_ids": image.neg_category_ids,
        "not_exhaustive_category_ids": image.not_exhaustive_category_ids,
    }
    return msgspec.json.encode({name: ids for name, ids in fields.items() if ids is not None}).decode()


def _without_nan(view: memoryview) -> bytes:
    """The text with empty strings in place of NaN and infinities, which JSON does not have."""
    text = bytes(view)
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    # Of equal length, so that positions in error messages stay right.
    return _NOT_JSON_NUMBER.sub(lambda match: match[0] if match[0][:1] == b'"' else _blank(match[0]), text)


def _numbers(values: list[int | float]) -> npt.NDArray[Any]:
    """Numbers as integers where all of them are and 64 bits hold them, else as floats."""
    array = np.array(values)
    return array if array.dtype.kind in "if" else array.astype(np.float64)


def _blank(text: bytes) -> bytes:
    return b'""'.ljust(len(text))


def _number(value: float | str | None) -> float | None:
    """A float; NaN for null and for what `_blank` has put in place of NaN; None for other text."""
    if value is None or value == "":
        return _NAN
    return None if isinstance(value, str) else value
