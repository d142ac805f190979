"""Writing the COCO files of a split folder from columns and selected rows."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Bool, Category, Columns, Float64, Int64

_BLOCK = 100_000


@dataclass(frozen=True)
class Part:
    """Images of one source, with their boxes.

    Attributes:
        columns: the source.
        rows: images to write, rows of the columns, int64 `[n]`.
        use: boxes to write, among those of these images, bool `[M]`.
        ignore: boxes to turn into ignored regions (`iscrowd` 1), bool `[M]` or None.
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

    Annotation ids are those of the source if they are unique, else 1, 2, ... by image, class and coordinates.
    """
    columns = [_box_columns(part) for part in parts]
    ids, image_ids, category_ids, boxes, areas, crowd = map(np.concatenate, zip(*columns, strict=True))
    order = np.argsort(ids)
    if (ids < 0).any() or (np.diff(ids[order]) == 0).any():
        order = content_order(image_ids, category_ids, boxes, crowd, areas)
        ids = np.empty(len(order), np.int64)
        ids[order] = np.arange(1, len(order) + 1)
    with _coco_file(path, parts, categories, federated=True) as file:
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            corners = map(tuple, boxes[rows].tolist())
            numbers = [column[rows].tolist() for column in (ids, image_ids, category_ids, areas, crowd)]
            block = list(map(_Annotation, *numbers[:3], corners, *numbers[3:]))
            file.write((b",\n" if start else b"") + msgspec.json.encode(block)[1:-1])
    return len(order)


def content_order(image_ids: Int64, category_ids: Int64, boxes: Float64, crowd: Int64, areas: Float64) -> Int64:
    """The order of boxes by image, class, coordinates, crowd flag and area, int64 `[n]`.

    Few boxes share image and class; sorting all boxes by all eight columns would take five times as long.
    """
    order: Int64 = np.lexsort((category_ids, image_ids))
    images, classes = image_ids[order], category_ids[order]
    first = np.ones(len(order), np.bool_)  # of its image and class
    first[1:] = (images[1:] != images[:-1]) | (classes[1:] != classes[:-1])
    places = np.flatnonzero(~(first & np.append(first[1:], True)))
    tied = order[places]
    group = np.cumsum(first)[places]
    order[places] = tied[np.lexsort((areas[tied], crowd[tied], *boxes[tied].T[::-1], group))]
    return order


def write_unlabeled(path: Path, parts: Sequence[Part], categories: Sequence[Category]) -> None:
    """Write an image list as COCO JSON without annotations, sorted by id.

    LVIS's federated fields are left out: they say which classes an image holds or lacks, so they are labels.
    """
    with _coco_file(path, parts, categories, federated=False):
        pass


@contextlib.contextmanager
def _coco_file(
    path: Path, parts: Sequence[Part], categories: Sequence[Category], *, federated: bool
) -> Iterator[BinaryIO]:
    """Write a COCO file; the caller writes the list of annotations in between."""
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


def _image_blocks(parts: Sequence[Part], *, federated: bool) -> Iterator[list[_Image]]:
    """The images of all parts, ascending by id: those of every source ascend, and two sources never interleave."""
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


def _box_columns(part: Part) -> tuple[npt.NDArray[Any], ...]:
    """Ids, image ids, class ids, boxes, areas and crowd flags (0 or 1) of the boxes of a part."""
    columns = part.columns
    rows = part.box_rows()
    crowd = columns.crowd[rows]
    if part.ignore is not None:
        crowd = crowd | part.ignore[rows]
    boxes = columns.boxes[rows]
    areas = columns.areas[rows]
    # mmdet drops annotations whose area is not positive, whatever their box.
    areas = np.where(areas > 0, areas, boxes[:, 2] * boxes[:, 3])
    category_ids = np.array([category.id for category in columns.categories])[columns.box_label[rows]]
    image_ids = columns.image_ids[columns.box_image[rows]]
    return columns.box_ids[rows], image_ids, category_ids, boxes, areas, crowd.astype(np.int64)
