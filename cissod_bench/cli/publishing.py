"""`cissod-bench submit` and `check-results`: pack a run for a pull request, and check what is published."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cissod_bench.cli.console import print_json, say
from cissod_bench.cli.options import DataRoot, Json


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
    following = f"cissod-bench check-results {quote(str(packed.folder.parent))} --write-index"
    say(f"{packed.folder}: {size:.1f} MiB. Next: {following}")


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
