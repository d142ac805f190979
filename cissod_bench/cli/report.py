"""`cissod-bench report`: the leaderboard from run folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cissod_bench.cli.options import Json

if TYPE_CHECKING:
    from cissod_bench.leaderboard.table import Table


def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold them at any depth.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report's files. Default: print only.", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option(help="AP, AP50, AP75, APs, APm, APl or AR.")] = "AP",
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples over images for intervals and marks of difference. 0: none.")
    ] = 0,
    baseline: Annotated[str, typer.Option(help="Method that the marks of difference refer to.")] = "soft-teacher",
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="Print the paper's ablations, Tables 4 and 5, with our rows beside theirs."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier report.")] = False,
    as_json: Json = False,
) -> None:
    """Make tables from finished runs, with the paper's numbers beside them.

    Only runs that agree in task and protocol, split, schedule, detector and evaluator stand in one table; tables say
    why they are apart. A mean is over training seeds, and only where no seed is missing. Damaged or foreign records
    are left out and named.
    """
    from rich.progress import track

    from cissod_bench.leaderboard.report import make_report, write_report
    from cissod_bench.leaderboard.writers import json_text

    made = make_report(
        folders,
        metric=metric,
        samples=bootstrap,
        baseline=baseline,
        variants=paper_variants(),
        progress=iter if as_json else lambda drawn: track(drawn, "Resampling images", transient=True),
    )
    written = write_report(made, out, overwrite=overwrite) if out else []
    for entry in made.rejected:
        typer.secho(f"Left out: {entry.reason}", err=True, fg=typer.colors.YELLOW)
    if as_json:
        typer.echo(json_text(made.results), nl=False)
        return
    for table in made.ablations if ablation else (*made.tables, *made.images):
        print_table(table)
    if written:
        typer.echo(f"Written: {', '.join(str(path) for path in written)}")


def paper_variants() -> dict[tuple[int, str], tuple[str, dict[str, Any]]]:
    """(table, row) of the paper's ablations -> method and the options in which it differs from the method's defaults.

    The last row of Table 4 is gbs with its defaults, so an ablation's options that equal that row's are no change.
    """
    from cissod_bench.methods.gbs.ablations import ABLATIONS

    defaults = ABLATIONS["crs-gbt-gbr"].options
    return {
        (ablation.table, ablation.title): (
            ablation.method,
            {name: value for name, value in ablation.options.items() if defaults.get(name) != value},
        )
        for ablation in ABLATIONS.values()
    }


def print_table(table: "Table") -> None:
    """Print a table to the terminal: best in bold, second underlined."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from cissod_bench.leaderboard.writers import number

    shown = Grid(title=Text(table.title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in table.columns:
        heading = f"{column.over}\n{column.title}"
        shown.add_column(Text(heading), justify="left" if column.kind in ("rank", "text") else "right", overflow="fold")
    styles = {1: "bold", 2: "underline", None: ""}
    for row, cells in enumerate(table.rows):
        shown.add_row(
            *(
                Text(number(column, cell), style=styles[table.place(row, index)])
                for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True))
            )
        )
    console = Console()
    console.print(shown)
    for line in (table.caption, *table.notes):
        if line:
            console.print(Text(line, style="dim"))
    console.print()
