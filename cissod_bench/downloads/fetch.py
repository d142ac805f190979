"""Bring a source: download, verify, unpack, and leave alone what is here already."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cissod_bench.downloads.catalog import Download, Source
from cissod_bench.downloads.check import Found, Update, check_item, check_source, refuse_wrong
from cissod_bench.downloads.transfer import NO_SPACE, part_file, receive, verify
from cissod_bench.downloads.unpack import unpack
from cissod_bench.errors import UserError

Bar = Callable[[str], AbstractContextManager[Update | None]]
"""Makes a progress bar with a title."""


def fetch_source(source: Source, root: Path, bar: Bar) -> list[Found]:
    """Bring what a source lacks, and say what is here then.

    Args:
        source: what to bring.
        root: the data root; is made.
        bar: a bar for each step.

    Raises:
        UserError: something else lies where it belongs, it cannot be had or verified, the disk is full, or a part must
            be got by hand.
    """
    for download in source.downloads:
        found = [check_item(item, root) for item in download.items]
        for entry in found:
            refuse_wrong(entry)
        if any(entry.state == "missing" for entry in found):
            _fetch(download, root, bar)
    found = check_source(source, root)
    if source.by_hand and (not found or any(entry.state != "ok" for entry in found)):
        raise UserError(source.by_hand)
    return found


def _fetch(download: Download, root: Path, bar: Bar) -> None:
    target = root / download.items[0].path
    with part_file(target.parent, download.name) as part:
        _refuse_full_disk(download, part)
        with bar(f"Downloading {download.name}") as update:
            receive(download, part, update)
        with bar(f"Verifying {download.name}") as update:
            verify(download, part, update)
        if not download.unpacked:
            part.replace(target)
            return
        try:
            with bar(f"Unpacking {download.name}") as update:
                unpack(part, download, root, update)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise UserError(
                f"{target.parent}: {error.strerror}. Free some disk space, then run the same command again; the "
                "archive need not be downloaded again."
            ) from None
        part.unlink()


def _refuse_full_disk(download: Download, part: Path) -> None:
    """Say before hours of downloading that there is no room. An archive and what it holds are there at the same time.

    Raises:
        UserError: the disk has less room than needed.
    """
    size = download.size or 0
    needed = size - min(part.stat().st_size, size)
    if download.unpacked:
        # JPEGs do not get smaller in an archive.
        needed += sum(item.size or size for item in download.items)
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise UserError(
            f"{part.parent}: {download.name} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. "
            "Free some disk space, or give another --data-root."
        )
