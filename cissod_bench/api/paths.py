"""Paths as the API takes them."""

import os
from collections.abc import Sequence
from pathlib import Path

from cissod_bench.errors import UserError

AnyPath = str | os.PathLike[str]


def optional(path: AnyPath | None) -> Path | None:
    """A path that need not be given."""
    return None if path is None else Path(path)


def paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """One path or several."""
    return [Path(given)] if isinstance(given, str | os.PathLike) else [Path(path) for path in given]


def some_paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """One path or several, at least one.

    Raises:
        UserError: there is none.
    """
    found = paths(given)
    if not found:
        raise UserError("No folder is given. Give one or several.")
    return found


def new_picture(path: AnyPath) -> Path:
    """A file to write a picture to.

    Raises:
        UserError: it exists, or its name says no format.
    """
    file = Path(path)
    if file.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"{file}: give a name that ends in .png, .svg or .pdf.")
    if file.exists():
        raise UserError(f"{file} exists already. Choose another name.")
    return file
