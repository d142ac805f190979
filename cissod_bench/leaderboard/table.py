"""Tables whose cells know their meaning, so that every writer presents the same content."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["rank", "text", "count", "metric", "reference", "difference", "flag"]
Value = str | float | int | bool | list[Any] | dict[str, Any] | None
"""What a cell holds, as JSON has it. A float is a fraction: people read it in percent, programs as it is."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: unique in the table, for programs.
        title: heading.
        over: upper heading, shared with adjacent columns.
        kind: "metric" columns hold what was measured (larger is better; the best and second-best are marked),
            "reference" columns other numbers, "difference" columns a difference, "flag" columns true or false.
    """

    name: str
    title: str
    over: str = ""
    kind: Kind = "text"


@dataclass(frozen=True)
class Cell:
    """A value, with the standard deviation over seeds where there are several.

    `mark` is printed after the value; the notes of the table explain it.
    """

    value: Value
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

        content: dict[str, pd.Series[Any]] = {}
        for index, column in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            values = [cell.value for cell in cells]
            # Whole numbers and booleans stay what they are beside missing ones.
            content[column.name] = pd.Series(values, dtype="object")
            if not any(type(value) in (int, bool) for value in values):
                content[column.name] = content[column.name].infer_objects()
            if any(cell.std is not None for cell in cells):
                content[f"{column.name}_std"] = pd.Series([cell.std for cell in cells], dtype="float64")
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
    """The number as printed: in percent, with one decimal."""
    return round(100 * cell.value, 1) if isinstance(cell.value, float) else None
