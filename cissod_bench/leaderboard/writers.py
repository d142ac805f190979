"""A table as Markdown, CSV, LaTeX, HTML or JSON: pure functions that always give the same text for the same table."""

import html
import json
from collections.abc import Callable, Iterator

from cissod_bench.leaderboard.table import Cell, Column, Table

MISSING = "–"


def number(column: Column, cell: Cell) -> str:
    """A cell for human readers: one decimal, differences with their sign, the spread after ±."""
    if cell.value is None:
        return MISSING
    if isinstance(cell.value, str):
        return cell.value
    sign = "+" if column.kind == "difference" else ""
    text = f"{cell.value:{sign}.1f}"
    return f"{text if cell.std is None else f'{text} ± {cell.std:.1f}'}{cell.mark}"


def markdown(table: Table) -> str:
    """GitHub's Markdown: best in bold, second in italics."""
    marks = {1: "**", 2: "*", None: ""}
    lines = [f"## {table.title}", ""]
    heads = [f"{column.over} {column.title}".strip() for column in table.columns]
    lines.append(_pipe(heads))
    lines.append(_pipe([":--" if column.kind in ("text", "rank") else "--:" for column in table.columns]))
    for row, cells in enumerate(table.rows):
        texts = []
        for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True)):
            mark = marks[table.place(row, index)]
            texts.append(f"{mark}{number(column, cell).replace('|', chr(92) + '|')}{mark}")
        lines.append(_pipe(texts))
    if table.caption:
        lines += ["", table.caption]
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """CSV with column names in the first line and unrounded numbers; a missing number is an empty field."""
    return table.to_frame().to_csv(index=False, lineterminator="\n")


def latex(table: Table) -> str:
    r"""A booktabs table: best in bold, second underlined. Needs `\usepackage{booktabs}`."""
    marks = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}
    alignment = "".join("l" if column.kind in ("text", "rank") else "r" for column in table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(f'{table.title}. {table.caption}')}}}"]
    lines += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
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


def html_table(table: Table) -> str:
    """A `<table>` without style: best in `<strong>`, second in `<u>`, notes in a list below."""
    marks = {1: "<strong>%s</strong>", 2: "<u>%s</u>", None: "%s"}
    lines = [f'<table id="{html.escape(table.name)}">', f"<caption>{html.escape(table.caption)}</caption>", "<thead>"]
    spans = list(_spans(table.columns))
    if any(over for over, _, _ in spans):
        heads = [f'<th colspan="{end - start}" scope="colgroup">{html.escape(over)}</th>' for over, start, end in spans]
        lines.append(f"<tr>{''.join(heads)}</tr>")
    heads = [f'<th scope="col">{html.escape(column.title)}</th>' for column in table.columns]
    lines += [f"<tr>{''.join(heads)}</tr>", "</thead>", "<tbody>"]
    for row, cells in enumerate(table.rows):
        texts = []
        for index, (column, cell) in enumerate(zip(table.columns, cells, strict=True)):
            text = marks[table.place(row, index)] % html.escape(number(column, cell))
            order = f' data-order="{_exact(cell.value)}"' if isinstance(cell.value, float) else ""
            texts.append(f"<td{order}>{text}</td>")
        lines.append(f"<tr>{''.join(texts)}</tr>")
    lines += ["</tbody>", "</table>"]
    if table.notes:
        lines.append(f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in table.notes)}</ul>")
    return "\n".join(lines) + "\n"


def json_text(table: Table) -> str:
    """JSON: title, caption, notes, and a list of rows by column name; `NAME_std` for a value with a spread."""
    rows = []
    for cells in table.rows:
        row: dict[str, str | float | None] = {}
        for column, cell in zip(table.columns, cells, strict=True):
            row[column.name] = cell.value
            if cell.std is not None:
                row[f"{column.name}_std"] = cell.std
        rows.append(row)
    content = {"name": table.name, "title": table.title, "caption": table.caption, "notes": table.notes, "rows": rows}
    return json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "tex": latex,
    "html": html_table,
    "json": json_text,
}
"""Writers by file name extension."""


def _pipe(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _exact(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


def _spans(columns: tuple[Column, ...]) -> Iterator[tuple[str, int, int]]:
    """Runs of adjacent columns with the same upper heading: heading, first column, column after the last."""
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end].over != columns[start].over:
            yield columns[start].over, start, end
            start = end


_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "^": r"\^{}",
        "\\": r"\textbackslash{}", "~": r"\~{}", "±": r"$\pm$", "–": "--", "†": r"$\dagger$", "…": r"\ldots{}",
        "“": "``", "”": "''", "Δ": r"$\Delta$"}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
