"""Where a task's annotations lie."""

from pathlib import Path

from cissod_bench.errors import UserError
from cissod_bench.tasks.registry import Task


def annotation_file(task: Task, given: Path | None, data_root: Path) -> Path:
    """The training annotations of a task: the file given, else the one under the data root, .gz and .xz included.

    Raises:
        UserError: there is none, with the place where it was looked for.
    """
    if given is not None:
        return given
    if task.files is None:
        raise UserError(f"Task {task.name} has no place for its data. Give the file with --annotations.")
    return _found(task, data_root / task.files.train_annotations, "--annotations")


def majority_file(task: Task, given: Path | None, data_root: Path) -> Path | None:
    """The annotations that D_m comes from where they are another data set, else None.

    Raises:
        UserError: the task needs them and they are not there, or they are given and the task needs none.
    """
    needed = task.files is not None and task.files.majority_annotations
    if given is not None:
        if not needed:
            raise UserError(f"Task {task.name} takes all its images from one file: leave out --majority-annotations.")
        return given
    return _found(task, data_root / needed, "--majority-annotations") if needed else None


def _found(task: Task, path: Path, option: str) -> Path:
    for candidate in (path, path.with_name(path.name + ".gz"), path.with_name(path.name + ".xz")):
        if candidate.is_file():
            return candidate
    remedy = "Put the data under the data root (--data-root or CISSOD_DATA_ROOT)"
    if task.dataset == "custom":
        remedy = "Put it there, correct [data] in the task file"
    raise UserError(f"Task {task.name} needs {path}, which is not there. {remedy}, or give the file with {option}.")
