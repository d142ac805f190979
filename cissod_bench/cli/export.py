"""`cissod-bench export`: bundle a run's detector for publication."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.options import Trust


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    trust: Trust = False,
) -> None:
    """Bundle a run's detector for publication.

    Writes the teacher's weights (safetensors), mmdet's configuration, task, split digest and per-class scores. The
    bundle's README.md explains how mmdet loads it.
    """
    from cissod_bench import api

    checkpoint, needs = api.export(run, out, trust=trust)
    size = sum(path.stat().st_size for path in out.iterdir()) / 2**20
    loads = f"needs cissod_bench for {', '.join(needs)}" if needs else "loads in mmdet alone"
    say(f"{out}: {size:.1f} MiB from {checkpoint}; {loads}.")
