"""Output of the commands: tables, progress, JSON."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from cissod_bench.cli.layout.columns import arrange, narrowest_width, natural_width, terminal_width
from cissod_bench.errors import one_line, printable

if TYPE_CHECKING:
    from cissod_bench.launch.status import SweepRun
    from cissod_bench.leaderboard.table import Table

T = TypeVar("T")

_PIPE = 10_000  # columns in a pipe, where nothing is folded


def say(text: str, *, err: bool = False, color: str | None = None, end: str = "\n") -> None:
    """Print a text, which may have names from files in it, to standard output or error; NO_COLOR leaves colours out."""
    shown = printable(text) + end
    if color is not None and not os.environ.get("NO_COLOR"):
        shown = typer.style(shown, fg=color)
    typer.echo(shown, err=err, nl=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=indent))


def resampling(samples: Iterable[T]) -> Iterable[T]:
    """Iterate over bootstrap samples with a progress bar."""
    from rich.progress import track

    return track(samples, "Resampling images", transient=True)


def print_table(table: "Table") -> None:
    """Print a table to the terminal, the best value in bold, the second underlined.

    What is too wide is folded between words, then into blocks of columns, one below the other.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from cissod_bench.leaderboard.writers import number

    console = Console(width=terminal_width() or _PIPE, highlight=False)
    headings = [f"{one_line(column.over)}\n{one_line(column.title)}" for column in table.columns]
    if not any(column.over for column in table.columns):
        headings = [heading.strip("\n") for heading in headings]
    texts = [[number(column, cell) for column, cell in zip(table.columns, cells, strict=True)] for cells in table.rows]
    narrowest, natural = [], []
    for index, column in enumerate(table.columns):
        cells = [row[index] for row in texts]
        narrowest.append(narrowest_width(headings[index], cells, folds=column.kind == "text"))
        natural.append(natural_width(headings[index], cells))
    kinds = [column.kind for column in table.columns]
    keys = kinds.index("text") + 1 if "text" in kinds else 0
    styles = {1: "bold", 2: "underline", None: ""}
    console.print(Text(one_line(table.title), style="italic"))
    for block in arrange(natural, narrowest, keys, None if console.width == _PIPE else console.width - 2):
        shown = Grid(box=box.SIMPLE, pad_edge=False)
        for index, width in block.items():
            justify: Literal["left", "right"] = "left" if kinds[index] in ("rank", "text") else "right"
            shown.add_column(Text(headings[index]), justify=justify, overflow="fold", width=width)
        for row, cells in enumerate(texts):
            shown.add_row(*(Text(cells[index], style=styles[table.place(row, index)]) for index in block))
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
