"""Splits in the formats of other code bases: export and import.

* `ids`: the ids of D_l, one a line.
* `unbiased-teacher`: one JSON object, percentage -> seed -> positions of D_l in the list of training images, like
  Unbiased Teacher's `COCO_supervision.txt`. The list is detectron2's: by image id, only images with an annotation that
  is not a crowd. So the annotations are needed to count positions.
* `coco` (import only): a COCO file of D_l, such as Soft Teacher's `instances_train2017.1@10.json`.
* `yolo`: two text files of image paths, labelled and unlabelled. On import, paths are matched from their end.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from cissod_bench.coco.columns import Columns, Int64
from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import staged_folder, write_text
from cissod_bench.splits.folder import Split
from cissod_bench.splits.select import Selection

Form = Literal["ids", "unbiased-teacher", "yolo"]
FORMS: tuple[Form, ...] = ("ids", "unbiased-teacher", "yolo")


def export_ids(split: Split, target: Path) -> None:
    """Write the ids of D_l, one a line."""
    write_text(target, "".join(f"{image_id}\n" for image_id in split.labeled_ids.tolist()))


def export_yolo(split: Split, target: Path, folder: str) -> None:
    """Write a folder with `labeled.txt` and `unlabeled.txt`: paths of images under `folder`."""
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    with staged_folder(target) as staging:
        for name, file in (("labeled.txt", split.labeled_file), ("unlabeled.txt", split.unlabeled_file)):
            images = read_columns(file).file_names.tolist()
            write_text(staging / name, "".join(f"{prefix}{image}\n" for image in images))


def export_unbiased_teacher(splits: Sequence[Split], target: Path, columns: Columns) -> list[tuple[str, str]]:
    """Write the positions of D_l of several splits, by percentage and seed.

    Returns:
        Percentage and seed of each split: the values of `SUP_PERCENT` and `RANDOM_DATA_SEED` for Unbiased Teacher.

    Raises:
        UserError: two splits have the same percentage and seed, or a labelled image has no position.
    """
    listed = detectron2_images(columns)
    content: dict[str, dict[str, list[int]]] = {}
    written = []
    for split in splits:
        percentage = supervision_percentage(len(split.labeled_ids), len(listed))
        seeds = content.setdefault(percentage, {})
        if str(split.seed) in seeds:
            raise UserError(
                f"{split.folder}: two splits have percentage {percentage} and seed {split.seed}. Leave one out."
            )
        positions = np.searchsorted(listed, split.labeled_ids)
        found = (positions < len(listed)) & (listed[np.minimum(positions, len(listed) - 1)] == split.labeled_ids)
        if not found.all():
            raise UserError(
                f"{split.folder}: labelled image {split.labeled_ids[~found][0]} is not in the annotations, "
                "or has no annotation there."
            )
        seeds[str(split.seed)] = positions.tolist()
        written.append((percentage, str(split.seed)))
    write_text(target, msgspec.json.encode(content, order="sorted").decode() + "\n")
    return written


def supervision_percentage(labeled: int, listed: int) -> str:
    """The percentage with the fewest decimals for which Unbiased Teacher selects `labeled` of the `listed` images.

    It demands `int(percentage / 100.0 * listed) == labeled` and looks the list up under `str(percentage)`
    (`ubteacher/data/build.py`, `divide_label_unlabel`): 10 % of COCO's 117,266 images with annotations are `10.0`.
    """
    for decimals in range(1, 18):
        nearest = math.ceil(labeled * 100 * 10**decimals / listed) if listed else 0
        for number in (nearest - 1, nearest, nearest + 1):
            percentage = float(f"{number}e-{decimals}")
            if int(percentage / 100.0 * listed) == labeled:
                return str(percentage)
    raise UserError(f"No percentage of {listed} images is {labeled} images: these annotations are not the split's.")


def detectron2_images(columns: Columns) -> Int64:
    """Ids of the images that detectron2 lists for training, in its order."""
    rows = np.unique(columns.box_image[~columns.crowd & (columns.box_image >= 0)])
    ids: Int64 = columns.image_ids[rows]
    return ids


def read_ids(path: Path, columns: Columns, *, percentage: str | None = None, seed: str | None = None) -> Int64:
    """Read a list of images in any of the formats; returns the rows of the images, ascending.

    Args:
        path: ids separated by white space or commas, a JSON list of ids, an object percentage -> seed -> positions as
            Unbiased Teacher lists them, a COCO file of these images as Soft Teacher has it, or paths of images, one a
            line.
        columns: the annotations that the images are of.
        percentage: which entry of the JSON object.
        seed: which entry within it.

    Raises:
        UserError: it is not such a list, or has an image twice or one that the annotations lack.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    lines = text.split("\n")
    if text.lstrip().startswith("{") and _has_images(text):
        listed = read_columns(path)
        ids = listed.image_ids
        _check_same_images(path, listed, columns)
    elif text.lstrip().startswith("{"):
        ids = _positions(path, text, detectron2_images(columns), percentage, seed)
    elif "." in next((line for line in lines if line.strip()), ""):
        ids = columns.image_ids[_rows_of_paths(path, lines, columns)]
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


def _has_images(text: str) -> bool:
    """Whether a JSON object has a list `images`, as COCO files do."""
    try:
        return isinstance(msgspec.json.decode(text, type=dict[str, Any]).get("images"), list)
    except msgspec.DecodeError:
        return False


def _check_same_images(path: Path, listed: Columns, columns: Columns) -> None:
    """Refuse a COCO file whose ids stand for other images than those of the annotations."""
    ids, here, there = np.intersect1d(listed.image_ids, columns.image_ids, return_indices=True)
    names = zip(ids.tolist(), listed.file_names.take(here), columns.file_names.take(there), strict=True)
    for image_id, name, other in names:
        if name.rsplit("/", 1)[-1] != other.rsplit("/", 1)[-1]:
            raise UserError(
                f"{path}: image {image_id} is {name}, and {other} in the annotations: it belongs to other annotations."
            )


def _rows_of_paths(path: Path, lines: Sequence[str], columns: Columns) -> list[int]:
    """Rows of the images whose file names agree with the listed paths, as far as both name folders."""
    names = columns.file_names.tolist()
    by_base: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        by_base.setdefault(name.rsplit("/", 1)[-1], []).append(row)
    rows = []
    for line in lines:
        listed = line.strip().replace("\\", "/")
        if not listed:
            continue
        fitting = [
            row
            for row in by_base.get(listed.rsplit("/", 1)[-1], ())
            if f"/{listed}".endswith(f"/{names[row]}") or f"/{names[row]}".endswith(f"/{listed}")
        ]
        if len(fitting) != 1:
            what = f"matches {len(fitting)} images of" if fitting else "matches no image of"
            raise UserError(f"{path}: {listed} {what} the annotations, whose file names are such as {names[0]}.")
        rows += fitting
    return rows


def _positions(path: Path, text: str, listed: Int64, percentage: str | None, seed: str | None) -> Int64:
    try:
        content = msgspec.json.decode(text, type=dict[str, dict[str, list[int]]])
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path} is neither a COCO file nor a JSON object percentage -> seed -> positions ({error}). "
            "Other forms: a list of ids, or of file names, one a line."
        ) from None
    values: Any = content
    for option, key in (("--percentage", percentage), ("--list-seed", seed)):
        if key not in values:
            raise UserError(f"{path} holds several lists. Choose one with {option}: {', '.join(values)}.")
        values = values[key]
    positions = np.array(values, np.int64)
    if len(positions) and (positions.min() < 0 or positions.max() >= len(listed)):
        raise UserError(
            f"{path}: position {positions.max()} is beyond the {len(listed)} images with annotations: "
            "it belongs to other annotations."
        )
    return listed[positions]


def given_selection(majority: Int64, minority: Int64, num_images: int) -> Selection:
    """Labelled images that were selected elsewhere; an image in both lists counts as D_s."""
    return Selection(np.setdiff1d(majority, minority), minority, len(majority), num_images)
