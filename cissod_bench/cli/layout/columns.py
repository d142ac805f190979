"""Tables on a terminal: how wide columns are, and which ones stand side by side."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence

GAP = 3
"""Columns between two cells, at most."""
_NARROWEST = 24
"""A text is not folded into less than this many columns, unless its longest word and its heading are shorter."""


def terminal_width() -> int | None:
    """Columns of the terminal; None in a pipe, where nothing needs to be folded."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def arrange(natural: Sequence[int], narrowest: Sequence[int], keys: int, room: int | None) -> list[dict[int, int]]:
    """Place the columns of a table in as few blocks as possible, one below the other.

    Args:
        natural: width of each column if nothing is folded.
        narrowest: width of each column if its cells are folded between words as often as possible.
        keys: number of columns at the left that every block repeats.
        room: columns of the terminal, None for no limit.

    Returns:
        The blocks, as column -> its width. Only a column that alone is wider than the room is wider than it.
    """
    if room is None:
        return [dict(enumerate(natural))]
    blocks: list[list[int]] = [[]]
    first = list(range(keys))
    for column in range(keys, len(natural)):
        wanted = [*first, *blocks[-1], column]
        if blocks[-1] and sum(narrowest[each] for each in wanted) + GAP * (len(wanted) - 1) > room:
            blocks.append([])
        blocks[-1].append(column)
    return [_shrunk(natural, narrowest, [*first, *block], room) for block in blocks]


def _shrunk(natural: Sequence[int], narrowest: Sequence[int], columns: Sequence[int], room: int) -> dict[int, int]:
    """The natural widths, of which the largest ones are reduced until all fit."""
    widths = {column: natural[column] for column in columns}
    while sum(widths.values()) + GAP * (len(columns) - 1) > room:
        wide = [column for column in columns if widths[column] > narrowest[column]]
        if not wide:
            break
        widths[max(wide, key=lambda column: widths[column])] -= 1
    return widths


def narrowest_width(heading: str, cells: Sequence[str], *, folds: bool) -> int:
    """The smallest width of a column that breaks no word of its heading, and no cell, or no word of one if it folds."""
    unbroken = [*heading.split(), *(word for cell in cells for word in (cell.split() if folds else [cell]))]
    least = min(_NARROWEST, natural_width("", cells)) if folds else 0
    return max(least, *map(text_width, unbroken), 0)


def natural_width(heading: str, cells: Sequence[str]) -> int:
    """The width of a column if nothing is folded."""
    return max(text_width(line) for line in [*heading.split("\n"), *cells])


def text_width(text: str) -> int:
    """Columns that a text takes; letters of East Asian scripts take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
