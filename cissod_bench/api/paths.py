"""Paths as the API takes them."""

import os
from collections.abc import Sequence
from pathlib import Path

AnyPath = str | os.PathLike[str]


def optional(path: AnyPath | None) -> Path | None:
    """A path that need not be given."""
    return None if path is None else Path(path)


def paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """One path or several."""
    return [Path(given)] if isinstance(given, str | os.PathLike) else [Path(path) for path in given]
