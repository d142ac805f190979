"""`cissod-bench check-results`: are published results what they say?"""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_json, say
from cissod_bench.cli.options import DataRoot, Json


def check_results(
    folder: Annotated[Path, typer.Argument(help="Folder of published runs.")] = Path("results"),
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="Ground truth to score detections against; found by its digest. Repeatable."),
    ] = None,
    write_index: Annotated[bool, typer.Option("--write-index", help="Write the folder's index.json first.")] = False,
    data_root: DataRoot = Path("data"),
    as_json: Json = False,
) -> None:
    """Check whether published results are what they say.

    Checks schema, key, digests, statement and duplicates, and scores AP again from the detections.
    Exit code 1 if anything is wrong. Where the ground truth is not on this machine, AP is not scored again, and a note
    says so.
    """
    from cissod_bench import api

    found = api.check_results(folder, annotations=annotations or (), data_root=data_root, write_index=write_index)
    if as_json:
        names = ("runs", "rescored", "problems", "remarks")
        print_json({name: getattr(found, name) for name in names})
    else:
        for remark in found.remarks:
            say(f"Note: {remark}", err=True, color=typer.colors.YELLOW)
        for problem in found.problems:
            say(f"Wrong: {problem}", err=True, color=typer.colors.RED)
        runs, scored, problems = map(len, (found.runs, found.rescored, found.problems))
        say(f"{folder}: runs {runs}, scored again to the bit {scored}, problems {problems}.")
    if found.problems:
        raise typer.Exit(1)
