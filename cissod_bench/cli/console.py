"""Output of the commands: tables, progress, JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from cissod_bench.errors import one_line, printable

if TYPE_CHECKING:
    from cissod_bench.launch.status import SweepRun
    from cissod_bench.leaderboard.table import Table

T = TypeVar("T")


def say(text: str, *, err: bool = False, color: str | None = None, end: str = "\n") -> None:
    """Print a text, which may have names from files in it, to standard output or error."""
    typer.secho(printable(text) + end, err=err, fg=color, nl=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=indent))


def resampling(samples: Iterable[T]) -> Iterable[T]:
    """Iterate over bootstrap samples with a progress bar."""
    from rich.progress import track

    return track(samples, "Resampling images", transient=True)


def print_table(table: "Table") -> None:
    """Print a table to the terminal, the best value in bold, the second underlined."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from cissod_bench.leaderboard.writers import number

    shown = Grid(title=Text(one_line(table.title)), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in table.columns:
        heading = f"{one_line(column.over)}\n{one_line(column.title)}"
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
            console.print(Text(printable(line), style="dim"))
    console.print()


def print_rows(title: str, caption: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of runs, followed by the reasons given for some of them."""
    from cissod_bench.leaderboard.table import Cell, Column, Table

    def text(value: Any) -> str | None:
        return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value

    columns = (Column("run", "Run"), *(Column(name, heading) for name, heading in titles.items()))
    body = tuple((Cell(row["run"]), *(Cell(text(row[name])) for name in titles)) for row in rows)
    reasons = tuple(f"{row['run']}: {row['reason']}" for row in rows if row["reason"])
    print_table(Table("sweep", title, caption, columns, body, ranked=0, notes=reasons))


def print_states(runs: "Sequence[SweepRun]", as_json: bool) -> None:
    """Print the states of runs."""
    rows = [{"run": run.name, "out": str(run.out), "state": run.state, "reason": run.reason} for run in runs]
    if as_json:
        print_json(rows)
        return
    names = [run.state for run in runs]
    caption = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    print_rows(f"Runs in {runs[0].root}", caption, {"state": "State"}, rows)
