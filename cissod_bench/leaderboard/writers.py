"""A table as Markdown, CSV, LaTeX, HTML or JSON: pure functions that always give the same text for the same table.

One rule for units: AP and its like are percentages in what people read (terminal, Markdown, LaTeX, HTML, plots), and
fractions in what programs read (CSV, JSON, records).
"""

import csv
import functools
import html
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cissod_bench.errors import one_line, printable
from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.names import file_name
from cissod_bench.leaderboard.table import Cell, Column, Table, Value

MISSING = "–"


def number(column: Column, cell: Cell) -> str:
    """A cell for human readers: percent with one decimal, differences with their sign, the spread after ±."""
    match cell.value:
        case None:
            return "" if column.kind == "rank" else MISSING
        case str(text):
            return one_line(text)
        case bool(flag):
            return "*" if flag else ""
        case int(count):
            return f"{count:,}"
        case float(fraction):
            text = f"{100 * fraction:{'+' if column.kind == 'difference' else ''}.1f}"
            return f"{text if cell.std is None else f'{text} ± {100 * cell.std:.1f}'}{cell.mark}"
        case other:
            return canonical_json(other)


def markdown(table: Table) -> str:
    """GitHub's Markdown: best in bold, second in italics."""
    marks = {1: "**", 2: "*", None: ""}
    lines = [f"## {markdown_text(table.title)}", ""]
    heads = [markdown_text(f"{column.over} {column.title}".strip()) for column in table.columns]
    lines.append(_pipe(heads))
    lines.append(_pipe([":--" if column.kind in ("text", "rank") else "--:" for column in table.columns]))
    for row, cells in enumerate(table.rows):
        texts = []
        for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True)):
            mark = marks[table.place(row, index)]
            texts.append(f"{mark}{markdown_text(number(column, cell))}{mark}")
        lines.append(_pipe(texts))
    if table.caption:
        lines += ["", markdown_text(table.caption)]
    if table.notes:
        lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """A text in Markdown, on one line and inert: no cell, tag, link or code begins in it."""
    text = re.sub(r"[\\|\[\]`]", r"\\\g<0>", one_line(text))
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))
    return re.sub(r"^([*+>-]|#+)(?=\s)", r"\\\1", text)


def comma_separated(table: Table) -> str:
    """CSV with column names in the first line and unrounded fractions; a missing value is an empty field.

    Booleans are `true` and `false`; a list or an object is its JSON; `NAME_std` stands after a column with spreads.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spreads = [any(row[index].std is not None for row in table.rows) for index in range(len(table.columns))]
    heads = zip(table.columns, spreads, strict=True)
    writer.writerow([name for column, spread in heads for name in (column.name, f"{column.name}_std")[: 1 + spread]])
    for row in table.rows:
        cells = zip(row, spreads, strict=True)
        writer.writerow([each for cell, spread in cells for each in (_field(cell.value), cell.std)[: 1 + spread]])
    return text.getvalue()


def _field(value: Value) -> str | float | int | None:
    """A value as a field of CSV."""
    match value:
        case str():
            return _no_formula(value)
        case bool() | list() | dict():
            return canonical_json(value)
        case other:
            return other


def _no_formula(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with an apostrophe in front, if it looks like one.

    Plain numbers stay what they are.
    """
    if not re.match(r"\s*[=+@-]", text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def latex(table: Table) -> str:
    r"""A booktabs table: best in bold, second underlined. Needs `\usepackage{booktabs}`."""
    marks = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}
    alignment = "".join("l" if column.kind in ("text", "rank") else "r" for column in table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(f'{table.title}. {table.caption}')}}}"]
    lines += [rf"\label{{tab:{file_name(table.name)}}}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    spans = list(_spans(table.columns))
    if any(over for over, _, _ in spans):
        heads = [
            rf"\multicolumn{{{end - start}}}{{c}}{{{_tex(over)}}}" if over else " & ".join([""] * (end - start))
            for over, start, end in spans
        ]
        lines.append(" & ".join(heads) + r" \\")
        lines.append(" ".join(rf"\cmidrule(lr){{{start + 1}-{end}}}" for over, start, end in spans if over))
    lines.append(" & ".join(_tex(column.title) for column in table.columns) + r" \\")
    lines.append(r"\midrule")
    for row, cells in enumerate(table.rows):
        texts = [
            marks[table.place(row, index)] % _tex(number(column, cell))
            for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True))
        ]
        lines.append(" & ".join(texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_tex(note)}" for note in table.notes]
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def html_table(table: Table, identifier: str | None = None) -> str:
    """A `<table>` without style: best in `<strong>`, second in `<u>`, notes in a list below.

    Args:
        table: the table.
        identifier: its id on the page; default: its name.
    """
    marks = {1: "<strong>%s</strong>", 2: "<u>%s</u>", None: "%s"}
    lines = [f'<table id="{_html(identifier or table.name)}">', f"<caption>{_html(table.caption)}</caption>", "<thead>"]
    spans = list(_spans(table.columns))
    if any(over for over, _, _ in spans):
        heads = [
            f'<th colspan="{end - start}" scope="colgroup">{_html(over)}</th>' if over else "<th></th>" * (end - start)
            for over, start, end in spans
        ]
        lines.append(f"<tr>{''.join(heads)}</tr>")
    heads = [f'<th scope="col">{_html(column.title)}</th>' for column in table.columns]
    lines += [f"<tr>{''.join(heads)}</tr>", "</thead>", "<tbody>"]
    for row, cells in enumerate(table.rows):
        texts = []
        for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True)):
            text = marks[table.place(row, index)] % _html(number(column, cell))
            order = f' data-order="{cell.value!r}"' if type(cell.value) in (int, float) else ""
            if cell.value is None and column.kind != "text":
                order = ' data-order=""'  # without a number, at the end
            texts.append(f"<td{order}>{text}</td>")
        lines.append(f"<tr>{''.join(texts)}</tr>")
    lines += ["</tbody>", "</table>"]
    if table.notes:
        lines.append(f"<ul>{''.join(f'<li>{_html(note)}</li>' for note in table.notes)}</ul>")
    return "\n".join(lines) + "\n"


def json_text(table: Table) -> str:
    """JSON: title, notes, and a list of rows by column name, AP in [0, 1]; `NAME_std` for a value with a spread.

    The caption is left out, since it is about percentages.
    """
    rows = []
    for cells in table.rows:
        row: dict[str, Value] = {}
        for column, cell in zip(table.columns, cells, strict=True):
            row[column.name] = cell.value
            if cell.std is not None:
                row[f"{column.name}_std"] = cell.std
        rows.append(row)
    return json_rows(rows, name=table.name, title=table.title, notes=table.notes)


def json_rows(rows: Sequence[Mapping[str, Any]], **about: Any) -> str:
    """JSON: an object with `about` and `rows`. A row is a line, so that two reports are easy to compare."""
    dump = functools.partial(json.dumps, ensure_ascii=True, allow_nan=False)
    lines = [f'  "{name}": {dump(value)},' for name, value in about.items()]
    body = ",\n".join(f"    {dump(row, separators=(',', ':'))}" for row in rows)
    return "\n".join(["{", *lines, '  "rows": [', *([body] if body else []), "  ]", "}"]) + "\n"


WRITERS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "tex": latex,
    "html": html_table,
    "json": json_text,
}
"""Writers by file name extension."""


def _html(text: str) -> str:
    return html.escape(printable(text))


def _pipe(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _spans(columns: tuple[Column, ...]) -> Iterator[tuple[str, int, int]]:
    """Runs of adjacent columns with the same upper heading: heading, first column, column after the last."""
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end].over != columns[start].over:
            yield columns[start].over, start, end
            start = end


_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "^": r"\^{}",
        "\\": r"\textbackslash{}", "~": r"\~{}", "±": r"$\pm$", "–": "--", "†": r"$\dagger$", "…": r"\ldots{}",
        "“": "``", "”": "''", "Δ": r"$\Delta$", "≠": r"$\neq$"}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in one_line(text))
