"""Tasks by name: the built-in ones, and those of task files."""

import os
from pathlib import Path

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.tasks.records import TASKS, Task
from cissod_bench.tasks.task_file import read_task_file

__all__ = ["TASKS", "Task", "dataset_of", "get_task"]


def get_task(name: str | os.PathLike[str]) -> Task:
    """The built-in task of that name, or the custom task in the TOML file at that path.

    Raises:
        UserError: no such task, or the file is not a task file.
    """
    name = os.fspath(name)
    if name in TASKS:
        return TASKS[name]
    if name.endswith(".toml"):
        return read_task_file(Path(name))
    raise UserError(f"{unknown_name('task', name, TASKS)} A task file's name ends in .toml.")


def dataset_of(name: str) -> str:
    """`Task.dataset` of a task of which only the name is known."""
    return TASKS[name].dataset if name in TASKS else "custom"
