"""The tasks of the benchmark, and task files: `names()` of the built-in ones, and `describe(name)`."""

import os
from typing import Any


def names() -> list[str]:
    """Names of the built-in tasks."""
    from cissod_bench.tasks.registry import TASKS

    return list(TASKS)


def describe(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a task (`registry.Task`).

    Args:
        name: a task, or a task file (.toml).

    Raises:
        UserError: no such task.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.tasks.describe("coco-split1")["iterations"]
        180000
    """
    from dataclasses import asdict

    from cissod_bench.tasks.registry import get_task

    return asdict(get_task(name))
