"""Data sets and backbone weights that others publish."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cissod_bench.api.paths import AnyPath

if TYPE_CHECKING:
    from cissod_bench.downloads.catalog import Source
    from cissod_bench.downloads.check import Found, Update


def data_sources(*names: str) -> "list[Source]":
    """What tasks and detectors need: pages, licences, files, sizes, checksums, places below the data root.

    Args:
        names: built-in tasks, detector presets or sources; without any, all sources.

    Raises:
        UserError: an unknown name.

    Examples:
        >>> import cissod_bench as cb
        >>> [source.name for source in cb.data_sources("lvis")]
        ['coco-images', 'lvis-annotations']
    """
    from cissod_bench.downloads.catalog import find_sources

    return find_sources(names)


def check_data(
    names: Sequence[str] = (), data_root: AnyPath = "data", *, full: bool = False, progress: bool = False
) -> "list[Found]":
    """Look whether the files are there, by size and number.

    Args:
        names: as in `data_sources`.
        data_root: folder with the data sets.
        full: also read everything and compare checksums.
        progress: show bars on standard error.

    Raises:
        UserError: an unknown name.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.check_data(["r101-fpn"], "nowhere")[0].state
        'missing'
    """
    from cissod_bench.downloads.catalog import find_sources
    from cissod_bench.downloads.check import check_source

    found: list[Found] = []
    for source in find_sources(names):
        with _bar(f"Reading {source.name}", shown=progress and full) as update:
            found += check_source(source, Path(data_root), full=full, progress=update)
    return found


def fetch_data(names: Sequence[str], data_root: AnyPath = "data", *, progress: bool = False) -> "list[Found]":
    """Download, verify and unpack what tasks and detectors need. What is there already stays.

    A download that was stopped continues where it stopped. Nothing is used before its checksum agrees.

    Args:
        names: built-in tasks, detector presets or sources.
        data_root: folder for the data sets.
        progress: show bars on standard error.

    Raises:
        UserError: an unknown name, a file that cannot be had or is another one, a full disk, or something that can only
            be got by hand.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.fetch_data(["shapes"])
        []
    """
    from cissod_bench.downloads.catalog import find_sources
    from cissod_bench.downloads.fetch import fetch_source
    from cissod_bench.errors import UserError

    if not names:
        raise UserError("Name the tasks, detectors or sources to fetch; `data list` shows them.")
    return [
        found
        for source in find_sources(names)
        for found in fetch_source(source, Path(data_root), lambda title: _bar(title, shown=progress))
    ]


@contextmanager
def _bar(title: str, *, shown: bool) -> "Iterator[Update | None]":
    from cissod_bench.coco.reading_progress import byte_bar

    if not shown:
        yield None
        return
    with byte_bar(title) as update:
        yield update
