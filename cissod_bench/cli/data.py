"""`cissod-bench data`: what the tasks and detectors need from elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_json, say
from cissod_bench.cli.layout.panels import PanelApp
from cissod_bench.cli.options import DataRoot, Json
from cissod_bench.errors import UserError

app = PanelApp(help="List, check and fetch data sets and backbone weights.")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Tasks, detector presets or sources. Default: all.", show_default=False),
]


@app.command("list")
def list_sources(names: Names = None, as_json: Json = False) -> None:
    """Show pages, licences, files, sizes and checksums."""
    from cissod_bench import api

    sources = api.data_sources(*(names or ()))
    if as_json:
        print_json([asdict(source) for source in sources])
        return
    for source in sources:
        say(f"{source.name}: {source.title}\n    page     {source.page}\n    licence  {source.licence}")
        for download in source.downloads:
            size = "size not published" if download.size is None else f"{download.size:,} bytes"
            say(f"    file     {download.url}\n             {size}, {download.checksum}")
            for item in download.items:
                say(f"             -> {item.path}")
        if source.by_hand:
            say(f"    by hand  {source.by_hand}")


@app.command("check")
def check(
    names: Names = None,
    data_root: DataRoot = Path("data"),
    full: Annotated[bool, typer.Option("--full", help="Read every file and compare checksums.")] = False,
    as_json: Json = False,
) -> None:
    """Check that files are there, by size and number. Exit code 2 if one is missing or wrong."""
    from cissod_bench import api

    found = api.check_data(names or (), data_root, full=full, progress=True)
    if as_json:
        print_json([{"path": str(entry.path), "state": entry.state, "detail": entry.detail} for entry in found])
    else:
        for entry in found:
            say(f"{entry.state:8} {entry.path}  {entry.detail}".rstrip())
    bad = sum(entry.state != "ok" for entry in found)
    if bad:
        raise UserError(f"{bad} of {len(found)} files and folders below {data_root} are missing or wrong.")


@app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Tasks, detector presets or sources.")],
    data_root: DataRoot = Path("data"),
) -> None:
    """Download, verify and unpack. Run again after an interruption: it continues where it stopped."""
    from cissod_bench import api

    for entry in api.fetch_data(names, data_root, progress=True):
        say(f"{entry.state:8} {entry.path}  {entry.detail}".rstrip())
