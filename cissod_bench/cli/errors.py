"""`cissod-bench errors`: error types of a run's detections by class group."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_json, print_table
from cissod_bench.cli.options import Json
from cissod_bench.errors import UserError


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
    """Show TIDE error types by class group, and a confusion matrix of the groups.

    Cls: wrong class, Loc: wrong location, Both, Dupe: duplicate, Bkg: background, Miss: not found. The share of
    minority objects mistaken for a majority class or for background measures the paper's first confirmation bias.
    """
    from cissod_bench.leaderboard.errors import confusion_table, error_table, errors_of

    found = errors_of(run, annotations=annotations, min_score=min_score)
    if out is not None:
        _write_plots(out, run.name, found.counts, found.confusion, overwrite)
    if as_json:
        print_json({"errors": found.counts, "gain": found.gain, "confusion": found.confusion, "min_score": min_score})
        return
    print_table(error_table(found))
    print_table(confusion_table(found))


def _write_plots(
    out: Path, name: str, counts: dict[str, dict[str, int]], shares: dict[str, dict[str, int]], overwrite: bool
) -> None:
    from cissod_bench.io import write_bytes
    from cissod_bench.leaderboard.plots import confusion, error_types, render

    figures = {
        "errors": error_types(counts, f"{name}: error types"),
        "confusion": confusion(shares, f"{name}: confusion"),
    }
    files = {
        out / f"{name}-{what}.{kind}": data for what, figure in figures.items() for kind, data in render(figure).items()
    }
    existing = [str(path) for path, data in files.items() if path.exists() and path.read_bytes() != data]
    if existing and not overwrite:
        raise UserError(f"{', '.join(existing)}: exists with other content. Give --overwrite, or another --out.")
    for path, data in files.items():
        write_bytes(path, data)
