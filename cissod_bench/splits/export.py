"""Splits for other code bases, with the labels that their trainers may read.

A list of images alone would leak: in the images of D_m the protocol hides minority objects, and the full annotations
have them. So every export is a folder with the labels of D_l beside the list::

    labeled.json    D_l as COCO JSON
    unlabeled.json  D_u as COCO JSON without annotations
    minority.txt    the images of D_s
    split.json      the manifest of the split, with which `splits import` makes the very same split again
    README.txt      what may be trained on, and what the form loses

and, by form:

* `ids`: `labeled.txt`, the ids of D_l, one a line. Nothing is lost.
* `unbiased-teacher`: `supervision.json`, percentage -> seed -> positions of D_l in the list of training images, like
  Unbiased Teacher's `COCO_supervision.txt`; and a folder PERCENTAGE-seedSEED with the files above for each split. The
  list is detectron2's: by image id, only images with an annotation that is not a crowd. So the annotations are needed
  to count positions, and a labelled image without objects has none. Positions carry no labels.
* `yolo`: see `yolo.py`.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from cissod_bench.coco.columns import Columns, Int64
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.io import staged_folder, write_text
from cissod_bench.splits import yolo
from cissod_bench.splits.folder import LABELED, MANIFEST, UNLABELED, Split, write_ids

Form = Literal["ids", "unbiased-teacher", "yolo"]
FORMS: tuple[Form, ...] = get_args(Form)
LIST, MINORITY, POSITIONS, README = "labeled.txt", "minority.txt", "supervision.json", "README.txt"

ONLY = (
    "Train on the labels of {} alone, and never on the full annotations: they also hold the minority objects that are "
    "hidden in D_m, and the labels of D_u."
)


def export_splits(
    splits: Sequence[Split], target: Path, form: str, *, columns: Columns | None = None, images: Path | None = None
) -> list[str]:
    """Write splits in the form of another code base.

    Args:
        splits: the splits; only `unbiased-teacher` takes several.
        target: folder to create.
        form: one of `FORMS`.
        columns: the training annotations, for `unbiased-teacher`.
        images: folder of the training images, for `yolo`.

    Returns:
        What to know about the export, as sentences; README.txt has them too.

    Raises:
        UserError: an unknown form, a split that the form cannot hold, or a target that exists.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    if target.exists():
        raise UserError(f"{target} exists already. Choose another name.")
    if form != "unbiased-teacher" and len(splits) > 1:
        raise UserError(f"--form {form} takes one split, but {len(splits)} are given.")
    if form == "unbiased-teacher" and columns is None:
        raise UserError("unbiased-teacher lists positions in the training annotations. Give them with --annotations.")
    with staged_folder(target) as staging:
        if columns is not None and form == "unbiased-teacher":
            notes = _write_positions(splits, staging, columns)
        else:
            _write_labels(splits[0], staging)
            if form == "yolo":
                notes = [ONLY.format("labels/"), *yolo.write_yolo(splits[0], staging, images)]
            else:
                write_ids(staging / LIST, splits[0].labeled_ids)
                notes = [ONLY.format(LABELED)]
        write_text(staging / README, "\n".join(notes) + "\n")
    return notes


def _write_labels(split: Split, folder: Path) -> None:
    """Write what every export has."""
    for file, name in ((split.labeled_file, LABELED), (split.unlabeled_file, UNLABELED)):
        shutil.copyfile(file, folder / name)
    shutil.copyfile(split.folder / MANIFEST, folder / MANIFEST)
    write_ids(folder / MINORITY, split.minority_ids)


def _write_positions(splits: Sequence[Split], folder: Path, columns: Columns) -> list[str]:
    """Write the positions of D_l of several splits, by percentage and seed.

    Raises:
        UserError: two splits have the same percentage and seed, or a labelled image has no position.
    """
    listed = detectron2_images(columns)
    content: dict[str, dict[str, list[int]]] = {}
    notes = []
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
        beside = folder / position_folder(percentage, str(split.seed))
        beside.mkdir()
        _write_labels(split, beside)
        notes += [
            f"DATALOADER.SUP_PERCENT {percentage} DATALOADER.RANDOM_DATA_SEED {split.seed}",
            ONLY.format(f"{beside.name}/{LABELED}"),
        ]
    write_text(folder / POSITIONS, msgspec.json.encode(content, order="sorted").decode() + "\n")
    return [
        *notes,
        "Positions carry no labels: Unbiased Teacher takes these from the annotations that its data set is registered "
        "with. Register labeled.json and unlabeled.json as two data sets instead.",
    ]


def position_folder(percentage: str | None, seed: str | None) -> str:
    """Name of the folder with the labels of one of the splits in a list of positions."""
    return f"{percentage}-seed{seed}"


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
