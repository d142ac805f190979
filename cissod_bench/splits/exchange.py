"""Splits in the forms that other code bases use, out and in.

* `ids`: the ids of D_l, one a line.
* `unbiased-teacher`: one JSON object, percentage -> seed -> positions of D_l in the list of training images, as
  Unbiased Teacher's `COCO_supervision.txt`. The list is detectron2's: by image id, only images with an annotation that
  is no crowd, so the annotations are needed to count positions.
* `yolo`: two text files of image paths, labelled and unlabelled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from cissod_bench.errors import UserError
from cissod_bench.files import write_text
from cissod_bench.splits.columns import Columns, Int64
from cissod_bench.splits.draw import Drawn
from cissod_bench.splits.manifest import Split
from cissod_bench.splits.verify import read_coco_file

Form = Literal["ids", "unbiased-teacher", "yolo"]
FORMS: tuple[Form, ...] = ("ids", "unbiased-teacher", "yolo")


def export_ids(split: Split, target: Path) -> None:
    """Write the ids of D_l, one a line."""
    write_text(target, "".join(f"{image_id}\n" for image_id in split.labeled_ids.tolist()))


def export_yolo(split: Split, target: Path, images: str) -> None:
    """Write `labeled.txt` and `unlabeled.txt` into the folder `target`: paths of images under `images`."""
    for name, file in (("labeled.txt", split.labeled_file), ("unlabeled.txt", split.unlabeled_file)):
        prefix = f"{images.rstrip('/')}/" if images else ""
        write_text(target / name, "".join(f"{prefix}{image.file_name}\n" for image in read_coco_file(file).images))


def export_unbiased_teacher(splits: Sequence[Split], target: Path, columns: Columns) -> None:
    """Write the positions of D_l of several splits, by percentage and seed.

    Raises:
        UserError: two splits have the same percentage and seed, or a labelled image has no position.
    """
    listed = detectron2_images(columns)
    content: dict[str, dict[str, list[int]]] = {}
    for split in splits:
        percentage = str(100 * float(split.options["fraction"]))
        seeds = content.setdefault(percentage, {})
        if str(split.seed) in seeds:
            raise UserError(f"{split.folder}: percentage {percentage} and seed {split.seed} are there already.")
        positions = np.searchsorted(listed, split.labeled_ids)
        found = (positions < len(listed)) & (listed[np.minimum(positions, len(listed) - 1)] == split.labeled_ids)
        if not found.all():
            raise UserError(
                f"{split.folder}: labelled image {split.labeled_ids[~found][0]} is not in the annotations, "
                "or has no annotation there."
            )
        seeds[str(split.seed)] = positions.tolist()
    write_text(target, msgspec.json.encode(content, order="sorted").decode() + "\n")


def detectron2_images(columns: Columns) -> Int64:
    """Ids of the images that detectron2 lists for training, in its order."""
    rows = np.unique(columns.box_image[~columns.crowd & (columns.box_image >= 0)])
    ids: Int64 = columns.image_ids[rows]
    return ids


def read_ids(path: Path, columns: Columns, *, percentage: str | None = None, seed: str | None = None) -> Int64:
    """Read a list of image ids, or of positions as Unbiased Teacher lists them; rows of the images, ascending.

    Args:
        path: ids separated by white space or commas, a JSON list of ids, or an object percentage -> seed -> positions.
        columns: the annotations that the ids are of.
        percentage: which entry of a JSON object.
        seed: which entry of that.

    Raises:
        UserError: not such a list, an id twice or one that the annotations lack.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if text.lstrip().startswith("{"):
        ids = _positions(path, text, detectron2_images(columns), percentage, seed)
    else:
        try:
            ids = np.array(text.replace(",", " ").replace("[", " ").replace("]", " ").split(), dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path} is not a list of image ids: {error}.") from None
    if not len(ids):
        raise UserError(f"{path} lists no image.")
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"{path} lists {len(ids) - len(np.unique(ids))} images more than once.")
    known = np.isin(ids, columns.image_ids)
    if not known.all():
        raise UserError(f"{path}: image {ids[~known][0]} is not in the annotations ({int((~known).sum())} such).")
    rows: Int64 = np.sort(np.searchsorted(columns.image_ids, ids))
    return rows


def _positions(path: Path, text: str, listed: Int64, percentage: str | None, seed: str | None) -> Int64:
    try:
        content = msgspec.json.decode(text, type=dict[str, dict[str, list[int]]])
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is not a JSON object percentage -> seed -> positions: {error}.") from None
    values: Any = content
    for option, key in (("--percentage", percentage), ("--list-seed", seed)):
        if key not in values:
            raise UserError(f"{path}: say which list with {option}; there are {', '.join(values)}.")
        values = values[key]
    positions = np.array(values, np.int64)
    if len(positions) and (positions.min() < 0 or positions.max() >= len(listed)):
        raise UserError(
            f"{path}: position {positions.max()} is beyond the {len(listed)} images with annotations: "
            "it belongs to other annotations."
        )
    return listed[positions]


def given_draw(majority: Int64, minority: Int64, num_images: int) -> Drawn:
    """Labelled images that somebody else has drawn; an image in both lists counts as D_s."""
    return Drawn(np.setdiff1d(majority, minority), minority, len(majority), num_images)
