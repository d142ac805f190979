"""The plan of a split: which images and boxes go where. Nothing is written yet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cissod_bench.coco import checks, objects365
from cissod_bench.coco.columns import Bool, Columns, Int64
from cissod_bench.coco.names import clean_name
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.splits.folder import SplitRecord
from cissod_bench.splits.select import (
    Pairs,
    Selection,
    SelectionKey,
    hold_out,
    pairs_of,
    select_annotated,
    select_labeled,
)
from cissod_bench.splits.sources import Sources
from cissod_bench.splits.statistics import split_statistics
from cissod_bench.splits.write import Part
from cissod_bench.tasks.records import Task


@dataclass(frozen=True)
class Variant:
    """One of several splits of a task.

    Attributes:
        seed: of the selection.
        folds: number of parts for cross-validation, 0 without.
        fold: the part that is held out for validation.
        fraction: labelled part instead of the task's; a larger one only adds images. None for the task's own.
    """

    seed: int = 0
    folds: int = 0
    fold: int = 0
    fraction: float | None = None

    def budgeted(self, task: Task) -> Task:
        """The task with this variant's labelled fraction."""
        if self.fraction is None:
            return task
        return replace(task, selection=replace(task.selection, fraction=self.fraction, count=None))


@dataclass(frozen=True)
class Plan:
    """A split that has been selection.

    Attributes:
        record: manifest without digests.
        labeled: parts of D_l.
        unlabeled: D_u, as far as it is annotated; `folder`, its images without annotations.
        validation: images held out, with all their boxes; None if the task has its own validation data.
        ids: image ids of D_m, D_s, D_u and of the held-out images by the names of `folder.ID_FILES`.
        statistics: content of `statistics.json`.
    """

    record: SplitRecord
    labeled: list[Part]
    unlabeled: Part
    validation: Part | None
    ids: Mapping[str, Int64]
    statistics: Mapping[str, Any]
    folder: Part | None = None

    @property
    def all_unlabeled(self) -> list[Part]:
        """The parts of D_u."""
        return [self.unlabeled, *([self.folder] if self.folder else [])]


def plan_split(task: Task, sources: Sources, variant: Variant, given: Selection | None = None) -> Plan:
    """Plan a split with labelled images that are selected here or given.

    Args:
        task: which classes there are, how to select.
        sources: what to select from.
        variant: seed and fold.
        given: labelled images that were selected elsewhere; default: select them.

    Raises:
        UserError: the data lacks a class of the task, or no image would be labelled.
    """
    own_rule, task = task.selection, variant.budgeted(task)
    train = sources.train
    use = checks.usable(train, task.dataset)
    held_out = _held_out(task, train, variant, given)
    available = ~(sources.absent | held_out)
    pairs = pairs_of(train, use)
    if sources.absent.any():
        pairs = pairs.only(~sources.absent[pairs.image])
    minority = minority_labels(task, train, pairs)
    counted: dict[str, list[Pairs]] = {}
    if held_out.any():
        counted["validation"] = [pairs.only(held_out[pairs.image])]
        pairs = pairs.only(~held_out[pairs.image])
    key = SelectionKey(task.version, task.name, variant.seed)

    if sources.majority is None:
        selection = given
        if selection is None and task.keeps_all_labels and not task.selection.coverage:
            selection = select_annotated(pairs, minority)
        selection = selection or select_labeled(pairs, train.image_ids, available, minority, task.selection, key)
        parts = [_labeled_part(train, use, minority, selection, task)]
        majority_ids = train.image_ids[selection.majority]
    else:
        selection, majority = _select_from_two(sources.majority, pairs, train, available, minority, task, key)
        parts = [majority, Part(train, selection.minority, use)]
        majority_ids = sources.majority.image_ids[majority.rows]
    if not selection.majority_drawn:
        raise UserError(
            f"Task {task.name}: of {selection.majority_candidates} images none would be labelled. Raise the fraction."
        )
    unlabeled = np.setdiff1d(np.flatnonzero(available), np.concatenate([selection.majority, selection.minority]))
    labeled = [pairs_of(part.columns, part.trained_boxes()) for part in parts]
    groups = groups_of(task, train, minority, np.sum([part.images_per_class() for part in labeled], axis=0))
    is_unlabeled = np.zeros(train.num_images, np.bool_)
    is_unlabeled[unlabeled] = True
    counted = {"train": [pairs], "labeled": labeled, "unlabeled": [pairs.only(is_unlabeled[pairs.image])], **counted}
    folder, folder_ids = None, train.image_ids[:0]
    if sources.folder is not None:
        folder_ids = sources.folder.columns.image_ids
        folder = Part(sources.folder.columns, np.arange(len(folder_ids)), np.empty(0, np.bool_))
    return Plan(
        record=SplitRecord(
            task=task.name,
            protocol=task.version,
            seed=variant.seed,
            options=_options(task, variant, given, budget=task.selection != own_rule),
            source=source_facts(sources),
            classes=[{"id": category.id, "name": category.name} for category in train.categories],
            groups=groups,
            counts={
                "train_images": len(unlabeled) + len(folder_ids) + sum(len(part.rows) for part in parts),
                "labeled_images": sum(len(part.rows) for part in parts),
                "majority_images": len(majority_ids),
                "minority_images": len(selection.minority),
                "majority_candidates": selection.majority_candidates,
                "majority_drawn": selection.majority_drawn,
                "coverage_images": selection.coverage,
                "unlabeled_images": len(unlabeled) + len(folder_ids),
                "validation_images": int(held_out.sum()),
                "absent_images": int(sources.absent.sum()),
                "labeled_boxes": sum(len(part.box_rows()) for part in parts),
            },
        ),
        labeled=parts,
        unlabeled=Part(train, unlabeled, use),
        validation=Part(train, np.flatnonzero(held_out), use) if held_out.any() else None,
        ids={
            "majority": majority_ids,
            "minority": train.image_ids[selection.minority],
            "unlabeled": np.concatenate([train.image_ids[unlabeled], folder_ids]),
            "validation": train.image_ids[held_out],
        },
        statistics=split_statistics(
            train.categories,
            counted,
            groups,
            _faults(task, sources),
            _unmet_floors(task, train, pairs, minority),
        ),
        folder=folder,
    )


def minority_labels(task: Task, columns: Columns, pairs: Pairs) -> Bool:
    """Which classes of the data are minority classes of the task, bool `[C]`.

    Raises:
        UserError: the data lacks a class that the task names, or a rule leaves no majority or no minority class.
    """
    names = [clean_name(category.name) for category in columns.categories]
    wanted = [clean_name(name) for name in task.minority]
    for name in wanted:
        if name not in names:
            raise unknown_name(f"class (minority of task {task.name})", name, names)
    ids = np.array([category.id for category in columns.categories])
    minority: Bool = np.isin(names, wanted) if wanted else np.zeros(len(names), np.bool_)
    if task.dataset == "objects365":
        minority = ~np.isin(ids, list(objects365.FROM_COCO.values()))
    elif task.minority_rule and task.minority_rule.random:
        order = SelectionKey(task.version, task.name, task.minority_rule.seed).order(ids, "minority classes")
        minority[order[: task.minority_rule.random]] = True
    elif task.minority_rule:
        minority = pairs.images_per_class() <= task.minority_rule.max_images
    if not task.frequency_groups and (minority.all() or not minority.any()):
        which = "majority" if minority.all() else "minority"
        raise UserError(f"Task {task.name}: no class of the data is left for the {which}. Change the task's groups.")
    return minority


def groups_of(task: Task, columns: Columns, minority: Bool, labeled_images: Int64) -> dict[str, list[str]]:
    """Class names by group: maj and min, or f, c and r by the number of labelled images (paper sec. 4.1)."""
    group = minority.astype(np.int64)
    labels: tuple[tuple[str, int], ...] = (("maj", 0), ("min", 1))
    if task.frequency_groups:
        group = np.digitize(labeled_images, np.array(task.group_limits) + 1)
        labels = (("f", 2), ("c", 1), ("r", 0))
    return {
        label: [category.name for category, index in zip(columns.categories, group, strict=True) if index == number]
        for label, number in labels
    }


def _held_out(task: Task, columns: Columns, variant: Variant, given: Selection | None) -> Bool:
    """Training images that become validation images: the same for every seed, so that results are comparable.

    Given labelled images are never held out.

    Raises:
        UserError: more folds than images.
    """
    key = SelectionKey(task.version, task.name, 0)
    if variant.folds > columns.num_images:
        raise UserError(f"--folds {variant.folds}: there are {columns.num_images} images, one for each fold at most.")
    if variant.folds:
        return hold_out(columns.image_ids, variant.folds, variant.fold, key)
    held: Bool = np.zeros(columns.num_images, np.bool_)
    count = round(task.validation_fraction * columns.num_images)
    if count:
        order = key.order(columns.image_ids, "validation")
        if given is not None:
            order = order[~np.isin(order, np.concatenate([given.majority, given.minority]))]
        held[order[:count]] = True
    return held


def _select_from_two(
    majority: Columns, pairs: Pairs, train: Columns, available: Bool, minority: Bool, task: Task, key: SelectionKey
) -> tuple[Selection, Part]:
    """D_m from one data set and D_s from another: the usual selection from each, with the other half switched off."""
    use = checks.usable(majority, "coco")
    everywhere = np.ones(majority.num_images, np.bool_)
    only_majority = replace(task.selection, floor=0)
    first = select_labeled(pairs_of(majority, use), majority.image_ids, everywhere, minority, only_majority, key)
    only_minority = replace(task.selection, count=0)
    second = select_labeled(pairs, train.image_ids, available, minority, only_minority, key)
    merged = replace(second, majority_drawn=first.majority_drawn, majority_candidates=first.majority_candidates)
    return merged, Part(majority, first.majority, use)


def _labeled_part(columns: Columns, use: Bool, minority: Bool, selection: Selection, task: Task) -> Part:
    """D_l with the boxes that training sees: minority objects in D_m are dropped, ignored or kept."""
    rows = np.sort(np.concatenate([selection.majority, selection.minority]))
    if task.selection.coverage or task.selection.minority_objects == "keep":
        return Part(columns, rows, use)
    only_majority = np.zeros(columns.num_images + 1, np.bool_)  # the last for boxes of unknown images, row -1
    only_majority[selection.majority] = True
    hidden: Bool = minority[columns.box_label] & only_majority[columns.box_image]
    if task.selection.minority_objects == "drop":
        return Part(columns, rows, use & ~hidden)
    return Part(columns, rows, use, ignore=hidden)


def _faults(task: Task, sources: Sources) -> list[dict[str, Any]]:
    """The faults of the annotations, of both data sets where there are two."""
    found = checks.report(sources.train, task.dataset)
    if sources.majority is not None:
        found += [{**entry, "data": "coco"} for entry in checks.report(sources.majority, "coco")]
    return found


def _unmet_floors(task: Task, columns: Columns, pairs: Pairs, minority: Bool) -> dict[str, int]:
    """Classes that have fewer boxes than the floor in the whole data, with the number of their boxes."""
    wanted = np.ones(len(minority), np.bool_) if task.selection.coverage else minority
    return {
        category.name: int(boxes)
        for category, boxes, is_wanted in zip(columns.categories, pairs.boxes_per_class(), wanted, strict=True)
        if is_wanted and boxes < task.selection.floor
    }


def _options(task: Task, variant: Variant, given: Selection | None, *, budget: bool) -> dict[str, Any]:
    """Everything that decides the split; recorded in the manifest, since a task file can change.

    `label_budget` says that the fraction is not the task's own. What a split does not use is left out.
    """
    own = {
        "fold": [variant.fold, variant.folds] if variant.folds else None,
        "imported": given is not None,
        "label_budget": budget,
    }
    return {**task.split_options, **{name: value for name, value in own.items() if value}}


def source_facts(sources: Sources) -> dict[str, Any]:
    """`Split.source`: what the annotations of a split are known by."""
    source: dict[str, Any] = {
        "content": sources.train.digest,
        "images": sources.train.num_images,
        "boxes": sources.train.num_boxes,
    }
    if sources.majority is not None:
        source["majority_content"] = sources.majority.digest
    if sources.folder is not None:
        source |= sources.folder.facts()
    return source
