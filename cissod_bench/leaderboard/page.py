"""The leaderboard as one HTML file that works offline: tables to sort and filter, charts, and the record of every run.

The tables are plain HTML that DataTables (shipped with `itables`) makes sortable; the charts use Plotly. Without
JavaScript, tables and records are still readable.
"""

import base64
import html
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import plotly.graph_objects as go
import plotly.offline

from cissod_bench.errors import one_line, printable
from cissod_bench.leaderboard import plots
from cissod_bench.leaderboard.comparable import Row, Run, RunSet
from cissod_bench.leaderboard.series import MOST_ROWS, OBSERVED, Charts, ClassSeries, RunCurve
from cissod_bench.leaderboard.table import Table
from cissod_bench.leaderboard.writers import html_table
from cissod_bench.results.record import Costs, Rejected
from cissod_bench.version import __version__

DASHES = ("solid", "dash", "dot", "dashdot")
COLORS = (*plots.COLORS[:-1], "#808080")  # black would be invisible on a dark page
SYMBOLS = ("circle", "triangle-up", "square", "diamond", "cross", "star", "x", "pentagon")  # one more than colours


def html_page(
    run_sets: Sequence[RunSet],
    tables: Sequence[Table],
    charts: Sequence[Charts],
    not_drawn: str,
    more: Sequence[Table],
    rejected: Sequence[Rejected],
    out: Path,
) -> str:
    """The text of the page: the same for the same records.

    Args:
        run_sets: sets of comparable runs.
        tables: one for each set.
        charts: the data of the charts of the first sets.
        not_drawn: what has no charts, as a sentence.
        more: further tables: intervals over images, the paper's tables.
        rejected: files that were left out.
        out: folder of the page; links to configurations are relative to it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("cissod_bench.leaderboard") / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bundle = files("itables") / "html"
    parts = []
    for number, (run_set, table, data) in enumerate(zip_longest(run_sets, tables, charts)):
        figures = {} if data is None else _figures(run_set, data)
        shown = [
            {"id": f"chart-{number}-{index}", "title": title, "json": _json(figure)}
            for index, (title, figure) in enumerate(figures.items())
            if figure is not None
        ]
        parts.append({
            "title": printable(table.title),
            "table": html_table(table),
            "charts": shown,
            "runs": [_run(row, run, out) for row in run_set.rows for run in row.runs],
        })  # fmt: skip
    return environment.get_template("page.html").render(
        sections=parts,
        not_drawn=not_drawn,
        more=[{"title": printable(table.title), "table": html_table(table)} for table in more],
        rejected=[printable(entry.reason) for entry in rejected],
        version=__version__,
        datatables_js=base64.b64encode((bundle / "dt_bundle.js").read_bytes()).decode(),
        datatables_css=(bundle / "dt_bundle.css").read_text("utf-8"),
        plotly_js=plotly.offline.get_plotlyjs() if any(part["charts"] for part in parts) else "",
    )


def _figures(run_set: RunSet, data: Charts) -> dict[str, go.Figure | None]:
    """The charts of a set by their titles; None for those that it has no data for."""
    per_class, lines = data.classes, data.iterations
    figures: dict[str, go.Figure | None] = {
        "AP by group, with the 95 % t-interval over training seeds": bars(run_set),
        "AP per class, mean over training seeds": classes(per_class, "AP in percent") if per_class else None,
        "AP over iterations, one line a seed": curves(lines, "AP in percent", 100) if lines else None,
    }
    for word, found in zip(("precision", "recall"), data.pseudo_labels or (), strict=False):
        title = f"{word.capitalize()} of pseudo labels per class, last third of the runs"
        figures[title] = classes(found, f"{word} in percent")
    for name, words in OBSERVED.items():
        logged = data.observed[name]
        title = f"{words[0].upper()}{words[1:]} over iterations, by group"
        figures[title] = curves(logged, words) if logged else None
    return figures


def bars(run_set: RunSet) -> go.Figure:
    """AP by group of every row, with the 95 % t-interval over training seeds where there are several."""
    figure = go.Figure()
    for index, row in enumerate(run_set.rows[:MOST_ROWS]):
        found = [row.spread(group, "AP") for group in run_set.groups]
        figure.add_bar(
            name=_label(row.label),
            x=[_label(group) for group in run_set.groups],
            y=[None if spread is None else 100 * spread.mean for spread in found],
            error_y={
                "type": "data",
                "color": "#888888",
                "visible": any(spread is not None and spread.interval is not None for spread in found),
                "array": [100 * spread.interval if spread and spread.interval else None for spread in found],
            },
            marker_color=COLORS[index % len(COLORS)],
            marker_pattern_shape=("", "/", "\\", "x", "-", "|", "+")[index // len(COLORS) % 7],
        )
    return _styled(figure, "class group", "AP in percent")


def classes(found: ClassSeries, axis: str) -> go.Figure:
    """One value of every class and row, in percent."""
    figure = go.Figure()
    for index, (label, values) in enumerate(found.values.items()):
        figure.add_scatter(
            name=_label(label),
            x=[_label(name) for name in found.names],
            y=[None if value is None else 100 * value for value in values],
            mode="markers",
            marker={"color": COLORS[index % len(COLORS)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 7},
        )
    return _styled(figure, f"class, by {found.order}", axis)


def curves(found: Sequence[RunCurve], axis: str, scale: float = 1.0) -> go.Figure:
    """A value over iterations, multiplied by `scale`: one line for each run and group."""
    figure = go.Figure()
    groups = list(dict.fromkeys(run.group for run in found))
    for run in found:
        figure.add_scatter(
            name=_label(f"{run.label}, {run.group}"),
            x=run.curve[0],
            y=[scale * value for value in run.curve[1]],
            mode="lines+markers",
            line={"color": COLORS[run.row % len(COLORS)], "dash": DASHES[groups.index(run.group) % len(DASHES)]},
            legendgroup=f"{run.label}, {run.group}",
            showlegend=run.first,
        )
    return _styled(figure, "iteration", axis)


def _styled(figure: go.Figure, x: str, y: str) -> go.Figure:
    grid = {"gridcolor": "rgba(128,128,128,0.3)", "zerolinecolor": "rgba(128,128,128,0.5)"}
    figure.update_layout(
        xaxis={"title": x, "automargin": True, **grid},
        yaxis={"title": y, "rangemode": "tozero", **grid},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 50, "r": 10, "t": 40, "b": 50},
        template="none",
    )
    return figure


def _label(text: str) -> str:
    """A text in a chart: Plotly would take tags in it for tags."""
    return html.escape(one_line(text), quote=False)


def _json(figure: go.Figure) -> str:
    return json.dumps(json.loads(figure.to_json()), sort_keys=True).replace("<", "\\u003c")


def _link(file: Path, out: Path) -> str:
    """The address of a file relative to the page. With a dot in front, the name of a folder is no protocol."""
    return quote(f"./{os.path.relpath(file, out).replace(os.sep, '/')}")


def _costs(costs: Costs | None) -> dict[str, str]:
    if costs is None:
        return {}
    height, width = costs.image
    return {
        "parameters": f"{costs.parameters / 1e6:.2f} M",
        "operations": ""
        if costs.flops is None
        else f"{costs.flops / 1e9:.1f} GFLOPs for an image of {width} x {height} pixels",
        "latency": f"{costs.latency_ms:.1f} ms an image on {costs.device}",
        "GPU hours": "" if costs.gpu_hours is None else f"{costs.gpu_hours:.2f}",
    }


def _run(row: Row, run: Run, out: Path) -> dict[str, Any]:
    result = run.result
    config = result.files.get("config")
    linked = run.path.parent / config if config else None
    facts: dict[str, Any] = {
        "folder": str(run.path.parent),
        "training seed": "unknown" if result.key.train_seed is None else result.key.train_seed,
        "split": result.split or "",
        "method version": "not recorded" if row.version is None else row.version,
        "package version": result.package_version,
        "timing": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in sorted(result.timing.items())),
        "GPU memory": "" if result.gpu_memory_mib is None else f"{result.gpu_memory_mib:.0f} MiB",
        **_costs(result.costs),
        "source": f"{result.git.commit}{' with changes' if result.git.dirty else ''}" if result.git else "",
        "environment": ", ".join(f"{name} {version}" for name, version in sorted(result.environment.items())),
    }
    return {
        "label": printable(row.label if row.problem else f"{row.label}, seed {facts['training seed']}"),
        "facts": {name: printable(str(value)) for name, value in facts.items() if value != ""},
        "config": _link(linked, out) if linked and linked.is_file() else None,
    }
