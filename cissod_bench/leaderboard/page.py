"""The leaderboard as one HTML file that works offline: tables to sort and filter, figures, and the record of every run.

The tables are plain HTML that DataTables (shipped with `itables`) makes sortable. The figures are those of the report,
drawn once by matplotlib and put into the page as SVG: a library that draws them again in the browser would be five
times as large as the rest. Without JavaScript, tables, figures and records are still there to read.
"""

import base64
import gzip
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from cissod_bench.errors import printable
from cissod_bench.evaluation import METRICS
from cissod_bench.leaderboard.comparable import Row, Run, RunSet
from cissod_bench.leaderboard.figures.inline import inline_svg
from cissod_bench.leaderboard.figures.of_report import Picture
from cissod_bench.leaderboard.names import file_name
from cissod_bench.leaderboard.setting import Standards
from cissod_bench.leaderboard.table import Table
from cissod_bench.leaderboard.tables import run_set_table
from cissod_bench.leaderboard.writers import comma_separated, html_table, latex
from cissod_bench.results.record import Costs, Rejected
from cissod_bench.version import __version__


def html_page(
    run_sets: Sequence[RunSet],
    tables: Sequence[Table],
    metric: str,
    pictures: tuple[Sequence[Sequence[Picture]], Sequence[Picture]],
    not_drawn: str,
    more: Sequence[Table],
    rejected: Sequence[Rejected],
    out: Path,
    standards: Standards,
) -> str:
    """The text of the page: the same for the same records.

    Args:
        run_sets: sets of comparable runs.
        tables: one for each set.
        metric: what these tables show.
        pictures: the figures of the first sets, which have tables of the other metrics as well, and those of several.
        not_drawn: what has no figures, as a sentence.
        more: further tables: intervals over images, the paper's tables.
        rejected: files that were left out.
        out: folder of the page; links to configurations are relative to it.
        standards: the methods as they are today.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("cissod_bench.leaderboard") / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bundle = _bundle()
    of_sets, of_several = pictures
    parts = []
    for number, (run_set, table, drawn) in enumerate(zip_longest(run_sets, tables, of_sets)):
        by_metric = {metric: table}
        if drawn is not None:
            others = [each for each in METRICS if each != metric]
            by_metric |= {each: run_set_table(run_set, run_sets, metric=each, standards=standards) for each in others}
        parts.append({
            "title": printable(table.title),
            "tables": _tables(by_metric),
            "figures": [_figure(each, f"figure-{number}-{index}") for index, each in enumerate(drawn or ())],
            "runs": [_run(row, run, out) for row in run_set.rows for run in row.runs],
        })  # fmt: skip
    return environment.get_template("page.html").render(
        sections=parts,
        metric=metric,
        metrics=METRICS,
        not_drawn=not_drawn,
        figures=[_figure(each, f"figure-all-{index}") for index, each in enumerate(of_several)],
        more=[{"title": printable(table.title), "tables": _tables({"": table})} for table in more],
        rejected=[printable(entry.reason) for entry in rejected],
        version=__version__,
        datatables_js=base64.b64encode(gzip.compress((bundle / "dt_bundle.js").read_bytes(), mtime=0)).decode(),
        datatables_css=(bundle / "dt_bundle.css").read_text("utf-8"),
    )


def _bundle() -> Path:
    """Folder of the DataTables that `itables` ships; importing it would import pandas and more."""
    package = find_spec("itables")
    if package is None or package.origin is None:
        raise ImportError("The page needs the package itables.")
    return Path(package.origin).with_name("html")


def _tables(by_metric: Mapping[str, Table]) -> list[dict[str, str]]:
    """The tables of a set, each with its text as CSV and LaTeX for those who take it away."""
    found = []
    for metric, table in by_metric.items():
        name = file_name("-".join(filter(None, (table.name, metric))))
        texts = {f"{name}.csv": comma_separated(table), f"{name}.tex": latex(table)}
        found.append({"metric": metric, "html": html_table(table, name), "texts": _json(texts)})
    return found


def _figure(picture: Picture, name: str) -> dict[str, str]:
    svg = inline_svg(picture.figure, picture.title, name)
    return {"name": picture.name, "heading": _with_subscripts(printable(picture.heading)), "svg": svg}


def _with_subscripts(text: str) -> str:
    """A text as HTML, with the letters of the paper's symbols, such as D_l, where they belong."""
    return re.sub(r"\b([DS])_([lui])\b", r"<i>\1<sub>\2</sub></i>", html.escape(text))


def _json(content: Mapping[str, str]) -> str:
    """JSON that no browser takes for the end of a script."""
    return json.dumps(content).replace("<", "\\u003c")


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
