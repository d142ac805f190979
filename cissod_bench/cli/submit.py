"""`cissod-bench submit`: pack a run for a pull request."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import say


def submit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to make, such as results/shapes-gbs-seed-0.")],
    contact: Annotated[str, typer.Option(help="Whom to ask: a name with an address or a profile.")],
    hardware: Annotated[str, typer.Option(help="What the run was trained on.")],
    licence: Annotated[
        str, typer.Option(help="CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, Apache-2.0, MIT or BSD-3-Clause.")
    ] = "CC-BY-4.0",
    notes: Annotated[str, typer.Option(help="Free text.", show_default=False)] = "",
    data: Annotated[str, typer.Option(help="Address of the data; needed for a custom task.", show_default=False)] = "",
) -> None:
    """Pack a run for publication.

    Writes record, per-class arrays, compressed detections, logs and a statement. `check-results` says whether it can be
    accepted; docs/submitting.md describes the pull request.
    """
    from cissod_bench import api

    packed = api.pack_submission(run, out, contact=contact, licence=licence, hardware=hardware, notes=notes, data=data)
    for remark in packed.remarks:
        say(f"Note: {remark}", err=True, color=typer.colors.YELLOW)
    size = sum(path.stat().st_size for path in packed.folder.iterdir()) / 2**20
    say(f"{packed.folder}: {size:.1f} MiB. Next: cissod-bench check-results {packed.folder.parent} --write-index")
