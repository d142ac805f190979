"""The labels of all training images of a split, for the reference `full-labels` alone."""

from pathlib import Path

import numpy as np

from cissod_bench.coco import checks
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from cissod_bench.io import atomic_path
from cissod_bench.splits.folder import Split
from cissod_bench.splits.plan import source_facts
from cissod_bench.splits.sources import annotation_file, majority_file, read_sources
from cissod_bench.splits.write import Part, write_labeled
from cissod_bench.tasks.registry import Task


def find_labels(task: Task, hidden: Path | None, data_root: Path) -> tuple[Path, Path | None]:
    """The training annotations of a task, and those that D_m comes from where they are another file.

    Args:
        task: the task.
        hidden: its training annotations, if they are known.
        data_root: folder that the task's paths are relative to.

    Raises:
        UserError: one of them is not there.
    """
    return annotation_file(task, hidden, data_root), majority_file(task, None, data_root)


def write_full_labels(path: Path, task: Task, split: Split, files: tuple[Path, Path | None], images: Path) -> None:
    """Write all boxes of all images of a split, D_l and D_u, as COCO JSON.

    Args:
        path: the file to write.
        task, split: what is trained on.
        files: as `find_labels` returns them.
        images: folder of the training images.

    Raises:
        UserError: the annotations are not those that the split was made from.
    """
    sources, _ = read_sources(task, *files, read_coco, images=images)
    if any(split.source.get(name) != value for name, value in source_facts(sources).items()):
        raise UserError(
            f"{files[0]}: not the annotations that {split.folder} was made from. Give those as --hidden, or make the "
            "split again."
        )
    ids = np.concatenate([split.labeled_ids, split.unlabeled_ids])
    of_datasets = [(sources.train, task.dataset), *([(sources.majority, "coco")] if sources.majority else [])]
    parts = [
        Part(columns, np.flatnonzero(np.isin(columns.image_ids, ids)), checks.usable(columns, dataset))
        for columns, dataset in of_datasets
    ]
    with atomic_path(path) as temporary:
        write_labeled(temporary, parts, sources.train.categories)
