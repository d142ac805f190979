"""Tables whose cells know their meaning, so that every writer presents the same content."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["rank", "text", "metric", "reference", "difference"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: unique in the table, for programs.
        title: heading.
        over: upper heading, shared with adjacent columns.
        kind: "metric" columns hold our numbers (larger is better; the best and second-best are marked), "reference"
            columns the numbers of others, "difference" columns ours minus theirs.
    """

    name: str
    title: str
    over: str = ""
    kind: Kind = "text"


@dataclass(frozen=True)
class Cell:
    """A value: text, or a number in percent points with the standard deviation over seeds where there are several.

    `mark` is printed after the value; the notes of the table explain it.
    """

    value: str | float | None
    std: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: short, unique among the tables of a report; part of LaTeX labels and HTML ids.
        title: heading.
        caption: one or two sentences.
        columns: C of them.
        rows: C cells each, in the order of display.
        ranked: number of rows, from the first, that compete for best and second.
        notes: what readers must know.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ranked: int
    notes: tuple[str, ...] = ()

    def to_frame(self) -> "pd.DataFrame":
        """The unrounded values by column name; `NAME_std` after a column that has spreads."""
        import pandas as pd

        content: dict[str, list[str | float | None]] = {}
        for index, column in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            content[column.name] = [cell.value for cell in cells]
            if any(cell.std is not None for cell in cells):
                content[f"{column.name}_std"] = [cell.std for cell in cells]
        return pd.DataFrame(content)

    def place(self, row: int, column: int) -> int | None:
        """1 for the best and 2 for the second value of a metric column as printed, ties included; else None."""
        if self.columns[column].kind != "metric" or row >= self.ranked:
            return None
        printed = [shown(cells[column]) for cells in self.rows[: self.ranked]]
        values = sorted({value for value in printed if value is not None}, reverse=True)
        own = printed[row]
        if own is None or len(values) < 2 or own not in values[:2]:
            return None
        return values.index(own) + 1


def shown(cell: Cell) -> float | None:
    """The number as printed, with one decimal."""
    return round(cell.value, 1) if isinstance(cell.value, float) else None
