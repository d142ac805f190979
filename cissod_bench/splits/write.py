"""The files of a split folder, from columns and drawn rows."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from cissod_bench.splits.columns import Bool, Category, Columns, Int64

_BLOCK = 100_000


@dataclass(frozen=True)
class Part:
    """Images of one source, with their boxes.

    Attributes:
        columns: the source.
        rows: images to write, rows of the columns, int64 `[n]`.
        use: boxes to write, among those of these images, bool `[M]`.
        ignore: boxes to write as ignored regions (`iscrowd` 1) although they are none, bool `[M]` or None.
    """

    columns: Columns
    rows: Int64
    use: Bool
    ignore: Bool | None = None

    def box_rows(self) -> Int64:
        """Rows of the boxes that are written."""
        inside = np.zeros(self.columns.num_images + 1, np.bool_)  # the last for boxes of unknown images, row -1
        inside[self.rows] = True
        return np.flatnonzero(self.use & inside[self.columns.box_image])

    def trained_boxes(self) -> Bool:
        """Boxes that are written and not ignored by this part, bool `[M]`."""
        mask = np.zeros(self.columns.num_boxes, np.bool_)
        mask[self.box_rows()] = True
        return mask if self.ignore is None else mask & ~self.ignore


class _Image(msgspec.Struct, omit_defaults=True):
    id: int
    file_name: str
    width: int
    height: int
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int


class _Extra(msgspec.Struct):
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


def write_labeled(path: Path, parts: Sequence[Part], categories: Sequence[Category]) -> int:
    """Write images and their annotations as COCO JSON, sorted by id; returns the number of annotations.

    Annotation ids are those of the source where they are unique, else 1, 2, ... by image, class and coordinates.
    """
    annotations = [annotation for part in parts for annotation in _annotations(part)]
    ids = {annotation.id for annotation in annotations}
    if len(ids) < len(annotations) or min(ids, default=0) < 0:
        annotations.sort(key=lambda entry: (entry.image_id, entry.category_id, entry.bbox, entry.iscrowd, entry.area))
        for number, annotation in enumerate(annotations, 1):
            annotation.id = number
    annotations.sort(key=lambda entry: entry.id)
    with _coco_file(path, parts, categories, federated=True) as file:
        _write_blocks(file, annotations)
    return len(annotations)


def write_unlabeled(path: Path, parts: Sequence[Part], categories: Sequence[Category]) -> None:
    """Write an image list as COCO JSON without annotations, sorted by id.

    LVIS's federated fields are left out: they say which classes an image holds or not, so they are labels.
    """
    with _coco_file(path, parts, categories, federated=False):
        pass


@contextlib.contextmanager
def _coco_file(
    path: Path, parts: Sequence[Part], categories: Sequence[Category], *, federated: bool
) -> Iterator[BinaryIO]:
    """A COCO file up to the list of annotations, which the caller writes; the rest follows."""
    with path.open("wb") as file:
        file.write(b'{"images":[')
        separator = b""
        for block in _image_blocks(parts, federated=federated):
            file.write(separator + msgspec.json.encode(block)[1:-1])
            separator = b",\n"
        file.write(b'],\n"annotations":[')
        yield file
        named = [
            {key: value for key, value in msgspec.structs.asdict(category).items() if value is not None}
            for category in categories
        ]
        file.write(b'],\n"categories":' + msgspec.json.encode(named) + b"}\n")


def _write_blocks(file: BinaryIO, annotations: Sequence[_Annotation]) -> None:
    for start in range(0, len(annotations), _BLOCK):
        block = msgspec.json.encode(annotations[start : start + _BLOCK])[1:-1]
        file.write((b",\n" if start else b"") + block)


def _image_blocks(parts: Sequence[Part], *, federated: bool) -> Iterator[list[_Image]]:
    """The images of all parts, ascending by id; every source's ids ascend and no two sources' ids interleave."""
    for part in sorted((part for part in parts if len(part.rows)), key=lambda part: int(part.columns.image_ids[0])):
        columns = part.columns
        rows = np.sort(part.rows)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            extras = columns.extras.take(block) if federated else []
            images = list(
                map(
                    _Image,
                    columns.image_ids[block].tolist(),
                    columns.file_names.take(block),
                    columns.widths[block].tolist(),
                    columns.heights[block].tolist(),
                )
            )
            if any(extras):
                for image, extra in zip(images, extras, strict=True):
                    fields = msgspec.json.decode(extra or "{}", type=_Extra)
                    image.neg_category_ids = fields.neg_category_ids
                    image.not_exhaustive_category_ids = fields.not_exhaustive_category_ids
            yield images


def _annotations(part: Part) -> Iterator[_Annotation]:
    columns = part.columns
    rows = part.box_rows()
    crowd = columns.crowd[rows]
    if part.ignore is not None:
        crowd = crowd | part.ignore[rows]
    boxes = columns.boxes[rows]
    areas = columns.areas[rows]
    # mmdet drops annotations whose area is not positive, whatever their box.
    areas = np.where(areas > 0, areas, boxes[:, 2] * boxes[:, 3])
    category_ids = np.array([category.id for category in columns.categories])
    for box_id, image_id, category_id, box, area, is_crowd in zip(
        columns.box_ids[rows].tolist(),
        columns.image_ids[columns.box_image[rows]].tolist(),
        category_ids[columns.box_label[rows]].tolist(),
        boxes.tolist(),
        areas.tolist(),
        crowd.astype(np.int64).tolist(),
        strict=True,
    ):
        yield _Annotation(box_id, image_id, category_id, tuple(box), area, is_crowd)
