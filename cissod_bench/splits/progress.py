"""A progress bar over the bytes of a file that is being read."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def reading_bar(path: Path, *, visible: bool = True) -> Iterator[Callable[[int], None] | None]:
    """Show on standard error how much of `path` has been read; nothing where no person is watching."""
    from rich.console import Console

    console = Console(stderr=True)
    if not visible or not console.is_terminal or not path.is_file():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        reading = bar.add_task(f"Reading {path.name}", total=path.stat().st_size)
        yield lambda count: bar.update(reading, completed=count)
