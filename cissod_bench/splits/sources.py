"""Where a task's annotations lie."""

from pathlib import Path

from cissod_bench.errors import UserError
from cissod_bench.tasks import Task


def annotation_file(task: Task, given: Path | None, data_root: Path) -> Path:
    """The training annotations of a task: the file given, else the one under the data root.

    Raises:
        UserError: there is none, with the place where it was looked for.
    """
    if given is not None:
        return given
    if task.files is None:
        raise UserError(f"Task {task.name} has no place for its data. Give the file with --annotations.")
    path = data_root / task.files.train_annotations
    for candidate in (path, path.with_name(path.name + ".gz"), path.with_name(path.name + ".xz")):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"Task {task.name} needs {path}, which is not there. Put the data under the data root "
        "(--data-root or CISSOD_DATA_ROOT), or give the file with --annotations."
    )
