"""`cissod-bench errors`: error types of a run's detections by class group."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_json, print_table
from cissod_bench.cli.options import Json


def errors(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    annotations: Annotated[
        Path | None, typer.Option(help="Ground truth. Default: the file named in the run's record.")
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Detections below this score do not count in the confusion matrix.")
    ] = 0.3,
    out: Annotated[Path | None, typer.Option(help="Folder for plots (PNG, SVG). Default: print only.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing plots.")] = False,
    as_json: Json = False,
) -> None:
    """Show error types (TIDE) and confusions by class group.

    Cls: wrong class, Loc: wrong location, Both, Dupe: duplicate, Bkg: background, Miss: not found. The share of
    minority objects mistaken for a majority class or for background measures the paper's first confirmation bias.
    """
    from cissod_bench import api
    from cissod_bench.leaderboard.errors import confusion_table, error_table

    found = api.error_types(run, out, annotations=annotations, min_score=min_score, overwrite=overwrite)
    if as_json:
        print_json({"errors": found.counts, "gain": found.gain, "confusion": found.confusion, "min_score": min_score})
        return
    print_table(error_table(found))
    print_table(confusion_table(found))
