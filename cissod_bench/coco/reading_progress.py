"""Progress bars on standard error, only where a person is watching."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import SourceFile, read_coco


def read_with_bar(dataset: str) -> Callable[[Path], tuple[Columns, SourceFile]]:
    """A reader for files of this data set that shows how much of a file has been read."""

    def read(path: Path) -> tuple[Columns, SourceFile]:
        with _bar(f"Reading {path.name}", size=_size(path), data=True) as update:
            return read_coco(path, file_names="coco_url" if dataset == "lvis" else "file_name", progress=update)

    return read


@contextlib.contextmanager
def counting_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for a step that reports (done, in all)."""
    with _bar(title, size=None, data=False) as update:
        yield (lambda done, total: update(done, total)) if update else None


@contextlib.contextmanager
def byte_bar(title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar for a step that reports bytes (done, in all)."""
    with _bar(title, size=None, data=True) as update:
        yield update


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextlib.contextmanager
def _bar(title: str, *, size: int | None, data: bool) -> Iterator[Callable[..., None] | None]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    amount = DownloadColumn() if data else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        step = progress.add_task(title, total=size)

        def update(done: int, total: int | None = None) -> None:
            progress.update(step, completed=done, total=size if total is None else total)

        yield update
