"""From a task and its annotations to a split folder: read, draw, write, each step in its own file."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.files import write_json
from cissod_bench.splits import health, manifest
from cissod_bench.splits.columns import Bool, Columns, Int64
from cissod_bench.splits.draw import DrawKey, Drawn, Pairs, draw_labeled, floor_counts, pairs_of
from cissod_bench.splits.manifest import Manifest, SplitRecord
from cissod_bench.splits.reader import Source, read_coco
from cissod_bench.splits.statistics import ClassCounts, split_statistics
from cissod_bench.splits.write import Part, write_labeled, write_unlabeled
from cissod_bench.tasks import Task

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Made:
    """A finished split: its manifest, and whether the folder held the same one before."""

    manifest: Manifest
    unchanged: bool


@dataclass(frozen=True)
class Plan:
    """A split that has been drawn but not written.

    Attributes:
        record: manifest without digests.
        labeled: parts of D_l.
        unlabeled: parts of D_u.
        ids: image ids of D_m, D_s and D_u by the names of `manifest.ID_FILES`.
        statistics: content of `statistics.json`.
    """

    record: SplitRecord
    labeled: list[Part]
    unlabeled: list[Part]
    ids: Mapping[str, Int64]
    statistics: Mapping[str, Any]


def make_split(
    task: Task,
    annotations: Path,
    out: Path,
    *,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Made:
    """Draw the split of a task from an annotation file and write its folder.

    Args:
        task: which classes, how to draw.
        annotations: training annotations in COCO form.
        out: folder to make.
        seed: of the draw.
        force: replace another split that lies in `out`.
        progress: called with the number of bytes read so far.

    Raises:
        UserError: the annotations cannot be used, lack a class of the task, or `out` holds something else.
    """
    columns, source = read_coco(annotations, progress=progress)
    plan = plan_split(task, columns, seed)
    return write_split(plan, [source], out, force=force)


def plan_split(task: Task, columns: Columns, seed: int) -> Plan:
    """Draw a split from columns: nothing is written."""
    use = health.usable(columns, task.dataset)
    minority = minority_labels(task, columns)
    pairs = pairs_of(columns, use)
    available = np.ones(columns.num_images, np.bool_)
    key = DrawKey(task.version, task.name, seed)
    drawn = draw_labeled(pairs, columns.image_ids, available, minority, task.draw, key)
    if not len(drawn.majority) + len(drawn.minority):
        raise UserError(f"Task {task.name}: no image would be labelled. Raise the fraction or the floor.")

    labeled = np.sort(np.concatenate([drawn.majority, drawn.minority]))
    unlabeled = np.setdiff1d(np.flatnonzero(available), labeled)
    part = labeled_part(columns, use, minority, drawn, task)
    counts = class_counts(pairs, [part])
    groups = groups_of(task, columns, minority, counts.labeled_images)
    return Plan(
        record=SplitRecord(
            task=task.name,
            protocol=task.version,
            seed=seed,
            options=asdict(task.draw),
            source={"content": columns.content, "images": columns.num_images, "boxes": columns.num_boxes},
            classes=[{"id": category.id, "name": category.name} for category in columns.categories],
            groups=groups,
            counts={
                "train_images": int(available.sum()),
                "labeled_images": len(labeled),
                "majority_images": len(drawn.majority),
                "minority_images": len(drawn.minority),
                "majority_candidates": drawn.majority_candidates,
                "majority_drawn": drawn.majority_drawn,
                "coverage_images": drawn.coverage,
                "unlabeled_images": len(unlabeled),
                "labeled_boxes": len(part.box_rows()),
            },
        ),
        labeled=[part],
        unlabeled=[Part(columns, unlabeled, np.zeros(0, np.bool_))],
        ids={
            "majority": columns.image_ids[drawn.majority],
            "minority": columns.image_ids[drawn.minority],
            "unlabeled": columns.image_ids[unlabeled],
        },
        statistics=split_statistics(
            columns.categories,
            counts,
            groups,
            health.report(columns, task.dataset),
            unmet_floors(task, columns, pairs, minority, drawn),
        ),
    )


def minority_labels(task: Task, columns: Columns) -> Bool:
    """Which classes of the data are minority classes of the task, bool `[C]`.

    Raises:
        UserError: the data lacks a class that the task names.
    """
    names = [category.name for category in columns.categories]
    for name in task.minority:
        if name not in names:
            raise unknown_name(f"class (minority of task {task.name})", name, names)
    return np.isin(names, task.minority) if task.minority else np.zeros(len(names), np.bool_)


def groups_of(task: Task, columns: Columns, minority: Bool, labeled_images: Int64) -> dict[str, list[str]]:
    """Class names by group: maj and min by name, or f, c, r by the number of labelled images (paper sec. 4.1)."""
    names = [category.name for category in columns.categories]
    if task.frequency_groups:
        group = np.digitize(labeled_images, [11, 101])  # r <= 10, c 11 to 100, f > 100
        return {
            label: [name for name, index in zip(names, group, strict=True) if index == number]
            for number, label in ((2, "f"), (1, "c"), (0, "r"))
        }
    return {
        "maj": [name for name, is_minority in zip(names, minority, strict=True) if not is_minority],
        "min": [name for name, is_minority in zip(names, minority, strict=True) if is_minority],
    }


def labeled_part(columns: Columns, use: Bool, minority: Bool, drawn: Drawn, task: Task) -> Part:
    """D_l with the boxes that training sees: minority objects of D_m are dropped, ignored or kept."""
    rows = np.sort(np.concatenate([drawn.majority, drawn.minority]))
    hidden: Bool = np.zeros(0, np.bool_)
    if not task.draw.coverage and task.draw.minority_objects != "keep":
        only_majority = np.zeros(columns.num_images + 1, np.bool_)
        only_majority[drawn.majority] = True
        hidden = minority[columns.box_label] & only_majority[columns.box_image]
    if not hidden.any():
        return Part(columns, rows, use)
    if task.draw.minority_objects == "drop":
        return Part(columns, rows, use & ~hidden)
    return Part(columns, rows, use, ignore=hidden)


def class_counts(pairs: Pairs, labeled: list[Part]) -> ClassCounts:
    """Images and boxes per class in all training images and in D_l; objects that D_l ignores do not count."""
    inside = [pairs_of(part.columns, part.trained_boxes()) for part in labeled]
    return ClassCounts(
        train_images=pairs.images_per_class(),
        train_boxes=pairs.boxes_per_class(),
        labeled_images=np.sum([part.images_per_class() for part in inside], axis=0),
        labeled_boxes=np.sum([part.boxes_per_class() for part in inside], axis=0),
    )


def unmet_floors(task: Task, columns: Columns, pairs: Pairs, minority: Bool, drawn: Drawn) -> dict[str, int]:
    """Classes that have fewer boxes than the floor in the whole data, with the number that they have."""
    wanted = np.ones(len(minority), np.bool_) if task.draw.coverage else minority
    _, everywhere = floor_counts(pairs, np.concatenate([drawn.majority, drawn.minority]))
    return {
        category.name: int(boxes)
        for category, boxes, is_wanted in zip(columns.categories, everywhere, wanted, strict=True)
        if is_wanted and boxes < task.draw.floor
    }


def write_split(plan: Plan, sources: list[Source], out: Path, *, force: bool = False) -> Made:
    """Write a planned split, at once; a folder that holds the same split already is left as it is."""
    before = manifest.existing_digest(out)
    with manifest.staged_folder(out, replace=force) as staging:
        categories = plan.labeled[0].columns.categories
        write_labeled(staging / manifest.LABELED, plan.labeled, categories)
        write_unlabeled(staging / manifest.UNLABELED, plan.unlabeled, categories)
        for role, name in manifest.ID_FILES.items():
            manifest.write_ids(staging / name, plan.ids[role])
        write_json(staging / manifest.STATISTICS, plan.statistics)
        write_json(staging / manifest.SOURCE, [asdict(source) for source in sources])
        sealed = manifest.seal_split(staging, plan.record)
    return Made(sealed, unchanged=before == sealed.digest and not force)
