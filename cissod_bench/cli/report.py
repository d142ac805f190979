"""`cissod-bench report`: the leaderboard from run folders."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_table, resampling, say
from cissod_bench.cli.options import Json
from cissod_bench.errors import UserError
from cissod_bench.words import counted


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, or folders that contain them at any depth. Needed unless --published is given.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report's files. Default: print only.", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option(help="AP, AP50, AP75, APs, APm, APl or AR.")] = "AP",
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0, help="Bootstrap samples over images, 10 or more, for intervals and significance marks. 0: none."
        ),
    ] = 0,
    baseline: Annotated[str, typer.Option(help="Method that the significance marks compare with.")] = "soft-teacher",
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="Print the paper's ablations, Tables 4 and 5, next to runs in its setting."),
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Add the published runs that are comparable; without FOLDERS, all of them."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier report.")] = False,
    as_json: Json = False,
) -> None:
    """Write the leaderboard of finished runs.

    The paper's numbers stand next to runs in the paper's setting.
    A table holds only runs with the same task, protocol, split, schedule, detector and evaluator; its caption says how
    it differs from the others. Means are over training seeds, and only where every method has all seeds. Damaged and
    foreign records are skipped and named.
    """
    from cissod_bench import api
    from cissod_bench.leaderboard.report import write_report

    if not folders and not published:
        raise UserError("Give the folders of runs, or --published for the published ones.")
    if ablation and as_json:
        raise UserError("--json has the numbers of all runs, those of ablations too. Leave out --ablation.")
    made = api.report(
        folders or (),
        metric=metric,
        bootstrap=bootstrap,
        baseline=baseline,
        published=published,
        progress=iter if as_json else resampling,
    )
    written = write_report(made, out, overwrite=overwrite) if out else []
    for entry in made.left_out:
        say(f"Skipped: {entry.reason}", err=True, color=typer.colors.YELLOW)
    if as_json:
        say(made.numbers_as_json(), end="")
        return
    if ablation and not made.ablations:
        raise UserError(
            "No run of coco-split1, the task of the paper's ablations. Leave --ablation out to see all runs."
        )
    for table in made.ablations if ablation else (*made.tables, *made.splits, *made.images):
        print_table(table)
    if out is not None:
        say(f"{counted(len(written), 'file')} in {out}; start with {out / 'index.html'}.")
