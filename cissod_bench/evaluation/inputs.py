"""Ground truth and detections as checked NumPy columns, the input of every evaluator backend.

Annotations are read by `coco.reader`. A results file is decoded in chunks, so that 8 million detections fit into
memory.

Nothing in bad input is skipped or repaired. If one entry cannot be scored (an unknown image or class, a value that is
not finite, a negative score or box size), the whole input is refused and the first such entry is named, because an
average over the rest would look like a result. An empty list is not an error: it is a detector that found nothing.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.names import clean_name
from cissod_bench.coco.reader import read_columns
from cissod_bench.coco.stream import JsonObject, opened
from cissod_bench.errors import UserError
from cissod_bench.io import canonical_json

CHUNK_BYTES = 16 << 20

_ENTRY = re.compile(r"`\$\[(\d+)\]")
_RESULTS_FORM = "not a list of detections in COCO's results format, [{image_id, category_id, bbox, score}, ...]"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Annotations of one data set, N boxes of K classes, in the file's order.

    Attributes:
        image_ids: (I,) int64, ascending.
        class_ids: (K,) int64, ascending; `class_names` in the same order.
        box_image, box_class: (N,) int64, image and category id of every box.
        boxes: (N, 4) float64, x, y, width, height in pixels.
        areas: (N,) float64, `area` of the file (the area of the mask if it has masks), else width x height.
        crowd: (N,) bool.
        negative, not_exhaustive: per image of `image_ids`, LVIS's lists of category ids; empty for other data.
        frequency: per class, LVIS's official frequency group "f", "c" or "r"; None for other data.
    """

    path: Path
    image_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    box_image: NDArray[np.int64]
    box_class: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    negative: tuple[tuple[int, ...], ...]
    not_exhaustive: tuple[tuple[int, ...], ...]
    frequency: tuple[str | None, ...]

    def digest(self) -> str:
        """SHA-256 of everything that affects a score, whatever the order of the file: equal for equal ground truth."""
        columns = (self.box_image, self.box_class, *self.boxes.T, self.areas, self.crowd)
        order = np.lexsort(columns[::-1])
        digest = hashlib.sha256()
        for column in (self.image_ids, self.class_ids, *(column[order] for column in columns)):
            digest.update(np.ascontiguousarray(column).tobytes())
        lists = [[sorted(ids) for ids in image_lists] for image_lists in (self.negative, self.not_exhaustive)]
        digest.update(canonical_json([self.class_names, lists]).encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Detections:
    """D scored boxes in the order of the input, which breaks ties between equal scores.

    Attributes:
        box_image, box_class: (D,) int64, image and category id of every box.
        boxes: (D, 4) float64, x, y, width, height in pixels.
        scores: (D,) float64.
    """

    box_image: NDArray[np.int64]
    box_class: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Some of the detections, by a mask or by their positions."""
        return type(self)(self.box_image[rows], self.box_class[rows], self.boxes[rows], self.scores[rows])


class _Federated(msgspec.Struct, gc=False):
    """LVIS's fields of an image, as `Columns.extras` has them."""

    neg_category_ids: tuple[int, ...] | None = None
    not_exhaustive_category_ids: tuple[int, ...] | None = None


class _Detection(msgspec.Struct, gc=False):
    image_id: int | float
    category_id: int | float
    bbox: tuple[float, float, float, float]
    score: float


def read_ground_truth(path: Path, *, lvis: bool = False) -> GroundTruth:
    """Read a COCO-format annotation file.

    Args:
        path: JSON object with `images`, `categories` and `annotations`; plain, gzip or xz.
        lvis: the images must carry LVIS's `neg_category_ids` and `not_exhaustive_category_ids`.

    Raises:
        UserError: no such file, not COCO's format, or content that `ground_truth` refuses.
    """
    return ground_truth(read_columns(path, file_names="none"), path, lvis=lvis)


def ground_truth(columns: Columns, path: Path, *, lvis: bool = False) -> GroundTruth:
    """Annotations as ground truth.

    Args:
        columns: the annotations.
        path: their file, named in the messages.
        lvis: as of `read_ground_truth`.

    Raises:
        UserError: no images, an annotation of an unknown image or class, a box that is not finite or has a negative
            size or area, or LVIS's fields missing with `lvis`.
    """
    if not columns.num_images:
        raise UserError(f"{path}: the annotation file has no images, so there is nothing to evaluate.")
    for rows, what in ((columns.box_image, "an image"), (columns.box_label, "a class")):
        stray = np.flatnonzero(rows < 0)
        if len(stray):
            raise UserError(
                f"{path}: annotations[{stray[0]}] (id {columns.box_ids[stray[0]]}) is of {what} that the file does not "
                f"list ({len(stray)} such). Remove it, or add what it refers to."
            )
    _check_boxes(f"{path}: annotation", columns.boxes)
    _refuse(f"{path}: annotation", columns.areas < 0, "has a negative area", columns.areas)
    federated = _federated(columns)
    if lvis and any(image.neg_category_ids is None or image.not_exhaustive_category_ids is None for image in federated):
        raise UserError(
            f"{path}: images lack `neg_category_ids` or `not_exhaustive_category_ids`; "
            "LVIS's federated rules need them. Give an LVIS annotation file or evaluate with COCO's rules."
        )
    class_ids = np.array([category.id for category in columns.categories], dtype=np.int64)
    return GroundTruth(
        path=path,
        image_ids=columns.image_ids,
        class_ids=class_ids,
        class_names=tuple(clean_name(category.name) for category in columns.categories),
        box_image=columns.image_ids[columns.box_image],
        box_class=class_ids[columns.box_label],
        boxes=columns.boxes,
        areas=columns.areas,
        crowd=columns.crowd,
        negative=tuple(image.neg_category_ids or () for image in federated),
        not_exhaustive=tuple(image.not_exhaustive_category_ids or () for image in federated),
        frequency=tuple(category.frequency for category in columns.categories),
    )


def _federated(columns: Columns) -> list[_Federated]:
    """LVIS's fields of every image, empty where it has none."""
    if not len(columns.extras.data):
        return [_Federated()] * columns.num_images
    texts = columns.extras.tolist()
    decode = msgspec.json.Decoder(_Federated).decode
    return [decode(text) if text else _Federated() for text in texts]


def read_detections(source: Path | Sequence[dict[str, Any]], truth: GroundTruth) -> Detections:
    """Read detections in COCO's results format and check them against the ground truth.

    Args:
        source: a results JSON file, or its content: a list of {image_id, category_id, bbox [x, y, width, height],
            score}; other keys are ignored.
        truth: the ground truth that they will be scored against.

    Raises:
        UserError: no such file, not a list of detections, or an entry that cannot be scored (see the top of this file).
    """
    if isinstance(source, Path):
        name = f"{source}: detection"
        chunks = _decoded_chunks(source)
    else:
        name = "detections: entry"
        chunks = iter([_converted(source)])
    columns, first = [], 0
    for chunk in chunks:
        columns.append(_columns(chunk, name, first))
        first += len(chunk)
    found = Detections(
        box_image=np.concatenate([column[0] for column in columns]),
        box_class=np.concatenate([column[1] for column in columns]),
        boxes=np.concatenate([column[2] for column in columns]),
        scores=np.concatenate([column[3] for column in columns]),
    )
    unknown = ~np.isin(found.box_image, truth.image_ids)
    _refuse(name, unknown, f"is on an image that {truth.path} lacks", found.box_image)
    unknown = ~np.isin(found.box_class, truth.class_ids)
    _refuse(name, unknown, f"is of a class that {truth.path} lacks", found.box_class)
    _check_boxes(name, found.boxes)
    _refuse(name, ~np.isfinite(found.scores), "has a score that is not a finite number", found.scores)
    _refuse(name, found.scores < 0, "has a negative score", found.scores)
    return found


def _decoded_chunks(path: Path) -> Iterator[list[_Detection]]:
    """Decode a results file piece by piece; yields at least one list."""
    decoder = msgspec.json.Decoder(list[_Detection])
    count = 0

    def decode(text: memoryview) -> list[_Detection]:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError as error:
            # The decoder counts from the start of the piece.
            what = _ENTRY.sub(lambda place: f"`$[{count + int(place[1])}]", str(error))
            raise UserError(f"{path}: {_RESULTS_FORM} ({what}).") from None

    try:
        with opened(path) as content:
            for chunk in JsonObject(content, path, CHUNK_BYTES).array(decode):
                yield chunk
                count += len(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if not count:
        yield []


def _converted(entries: Sequence[dict[str, Any]]) -> list[_Detection]:
    """Entries in memory, whose numbers may be NumPy scalars."""
    found = []
    for index, entry in enumerate(entries):
        try:
            x, y, width, height = (float(value) for value in entry["bbox"])
            found.append(
                _Detection(
                    image_id=int(entry["image_id"]),
                    category_id=int(entry["category_id"]),
                    bbox=(x, y, width, height),
                    score=float(entry["score"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"detections: entry {index} is not {{image_id, category_id, bbox, score}} ({error!r})."
            ) from None
    return found


def _columns(
    chunk: list[_Detection], name: str, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The columns of a piece whose first entry is number `first` of all."""
    size = len(chunk)
    return (
        _ids(list(map(attrgetter("image_id"), chunk)), "image_id", name, first),
        _ids(list(map(attrgetter("category_id"), chunk)), "category_id", name, first),
        _rows(chunk),
        np.fromiter(map(attrgetter("score"), chunk), np.float64, size),
    )


def _ids(values: list[int | float], field: str, name: str, first: int) -> NDArray[np.int64]:
    """Ids as integers: floats have to be whole, and 64 bits have to hold them."""
    array = np.array(values) if values else np.empty(0, np.int64)
    if array.dtype == np.int64:
        return array
    limit = 2**53 if array.dtype.kind == "f" else 2**63  # floats beyond are not exact
    for number, value in enumerate(values, first):
        if not -limit < value < limit or value != int(value):
            raise UserError(
                f"{name} {number}: {field} {value} is not a whole number below 2**{limit.bit_length() - 1}."
            )
    return array.astype(np.int64)


def _rows(entries: Sequence[_Detection]) -> NDArray[np.float64]:
    flat = itertools.chain.from_iterable(map(attrgetter("bbox"), entries))
    return np.fromiter(flat, np.float64, 4 * len(entries)).reshape(-1, 4)


def _check_boxes(name: str, boxes: NDArray[np.float64]) -> None:
    _refuse(name, ~np.isfinite(boxes.sum(axis=1)), "has a box that is not finite", boxes)
    _refuse(name, boxes[:, 2:].min(axis=1, initial=0.0) < 0, "has a box of negative width or height", boxes)


def check_score(bound: float) -> None:
    """Refuse a bound of scores that is none.

    Raises:
        UserError: outside [0, 1], or not a number.
    """
    if not isinstance(bound, int | float) or not 0 <= bound <= 1:  # false for NaN too
        raise UserError(f"--min-score {bound}: scores are from 0 to 1.")


def _refuse(name: str, bad: NDArray[np.bool_], what: str, values: NDArray[Any]) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(f"{name} {first} {what}: {values[first].tolist()} ({int(bad.sum())} such entries).")
