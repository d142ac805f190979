"""Splits from lists of labelled images: those of `export.py`, and what other code bases publish.

* the folder of an export: the very split that was exported, with the same digest;
* ids, separated by white space or commas, or as a JSON list;
* Unbiased Teacher's JSON object, percentage -> seed -> positions;
* a COCO file of D_l, such as Soft Teacher's `instances_train2017.1@10.json`;
* paths of images, one a line, as YOLO lists them; they are matched from their end.

Only an export says which boxes of these images are labelled. Of another list D_s may be named: in all other images
minority objects become hidden, as the task says. Without it, every object of the listed images is labelled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.coco.columns import Columns, Int64
from cissod_bench.coco.reader import Read, read_columns
from cissod_bench.errors import UserError
from cissod_bench.splits.export import LIST, MINORITY, POSITIONS, detectron2_images, position_folder
from cissod_bench.splits.folder import LABELED, MANIFEST, Manifest, read_manifest
from cissod_bench.splits.make import Made, make_embedded_split, make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.splits.select import Selection
from cissod_bench.splits.sources import annotation_file
from cissod_bench.tasks.records import Task


@dataclass(frozen=True)
class Lists:
    """Which images are labelled, and the split that they come from.

    Attributes:
        labeled: list of D_l, in a form of `read_ids`.
        minority: list of D_s; None where it is not known.
        manifest: of the exported split; None for other lists.
    """

    labeled: Path
    minority: Path | None
    manifest: Manifest | None


def find_lists(ids: Path, minority: Path | None, percentage: str | None, seed: str | None) -> Lists:
    """The lists to import: those of an export, or the given files.

    Args:
        ids: folder of an export, or a list of labelled images.
        minority: list of the images of D_s, for a list that is not an export.
        percentage, seed: which of Unbiased Teacher's lists.

    Raises:
        UserError: a folder that is not an export, or an export with another list of D_s.
    """
    folder = _export_of(ids) if ids.is_dir() else ids.parent / position_folder(percentage, seed)
    if not (folder / MANIFEST).is_file():
        if ids.is_dir():
            raise UserError(f"{ids}: not an export of a split: there is no {MANIFEST}. Give a list of labelled images.")
        return Lists(ids, minority, None)
    if minority is not None:
        raise UserError(f"{folder} has its own list of D_s, {MINORITY}. Leave out --minority-ids.")
    labeled = folder / LIST if ids.is_dir() else ids
    if not labeled.is_file():
        labeled = folder / LABELED  # the folder of a split within an export of positions
    if not labeled.is_file():
        raise UserError(f"{folder}: there is neither {LIST} nor {LABELED}. Export the split again.")
    if not (folder / MINORITY).is_file():
        raise UserError(f"{folder}: there is no {MINORITY}, the list of D_s. Export the split again.")
    return Lists(labeled, folder / MINORITY, read_manifest(folder))


def _export_of(folder: Path) -> Path:
    """The folder of the exported split: the given one, or the only one in an export of positions.

    Raises:
        UserError: the export has several splits.
    """
    if (folder / MANIFEST).is_file() or not (folder / POSITIONS).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder}: an export of {len(found)} splits ({names}). Give the folder of one of them.")
    return found[0]


def import_split(
    task: Task,
    lists: Lists,
    out: Path,
    read: Read,
    *,
    annotations: Path | None = None,
    percentage: str | None = None,
    seed: str | None = None,
    images: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
    plot: bool = True,
) -> Made:
    """Make a split of labelled images that were selected elsewhere.

    Args:
        task: the task of the split.
        lists: see `find_lists`.
        out: split folder to create.
        read: reads an annotation file.
        annotations: training annotations; those of a task file by default, none for tasks whose data the package makes.
        percentage, seed: which of Unbiased Teacher's lists; the seed also becomes that of the split.
        images: folder of the training images, to check that all exist.
        progress: called with the number of images made so far and the total, for the tasks whose data is made.
        force: replace another split in `out`.
        plot: also plot the distribution of the classes.

    Raises:
        UserError: a list that does not fit the annotations, or an export that is of another task or other annotations.
    """
    if task.dataset == "objects365":
        raise UserError(
            f"Task {task.name} uses two data sets; lists of ids cannot be imported for it. Make its splits anew with "
            "`make-splits`: the same seed gives the same split."
        )
    if task.dataset == "custom":
        annotations = annotation_file(task, annotations, Path())
    if task.files is not None and annotations is None:
        raise UserError(f"Task {task.name} needs its training annotations. Give them with --annotations.")
    manifest, variant = lists.manifest, Variant(int(seed) if seed and seed.isdecimal() else 0)
    keep = lists.minority is None
    if manifest is not None:
        if (manifest.task, manifest.protocol) != (task.name, task.version):
            raise UserError(
                f"{lists.labeled.parent}: an export of task {manifest.task!r}, protocol {manifest.protocol}, not of "
                f"{task.name!r}, protocol {task.version}."
            )
        fold, folds = manifest.options.get("fold", (0, 0))
        budget = manifest.options["fraction"] if manifest.options.get("label_budget") else None
        variant, keep = Variant(manifest.seed, folds, fold, budget), manifest.options.get("minority_objects") == "keep"
    if keep:
        task = replace(task, selection=replace(task.selection, minority_objects="keep"))

    def given(columns: Columns) -> Selection:
        labeled = read_ids(lists.labeled, columns, percentage=percentage, seed=seed)
        minority: Int64 = np.empty(0, np.int64)
        if lists.minority is not None and lists.minority.read_text().strip():
            minority = read_ids(lists.minority, columns)
        return given_selection(labeled, minority, columns.num_images)

    if annotations is None:
        return make_embedded_split(
            task, out, variant, given=given, expected=manifest, progress=progress, force=force, plot=plot
        )
    return make_splits(
        task,
        annotations,
        [(out, variant)],
        images=images,
        read=read,
        given=given,
        expected=manifest,
        force=force,
        plot=plot,
    )[0]


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
                f"{path}: image {image_id} is {name}, but {other} in the annotations: the list belongs to others."
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
            raise UserError(f"{path}: {listed} {what} the annotations, whose file names look like {names[0]}.")
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
