"""`cissod-bench errors`: why a run's detections are wrong, by class group."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.options import Json
from cissod_bench.errors import UserError


def errors(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    annotations: Annotated[
        Path | None, typer.Option(help="Ground truth. Default: the file that the run's record names.")
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Detections below do not count in the confusion of groups.")
    ] = 0.3,
    out: Annotated[Path | None, typer.Option(help="Folder for plots (PNG, SVG). Default: print only.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace plots that are there.")] = False,
    as_json: Json = False,
) -> None:
    """TIDE error types by class group, and what objects of each group are taken for.

    Cls: wrong class, Loc: wrong place, Both, Dupe: found twice, Bkg: nothing there, Miss: not found. The share of
    minority objects taken for a majority class or for background is the paper's first confirmation bias as a number.
    """
    from cissod_bench.cli.report import print_table
    from cissod_bench.evaluation.groups import load_evaluation
    from cissod_bench.evaluation.inputs import read_detections
    from cissod_bench.evaluation.tide import ERROR_TYPES, group_confusion, tide_errors
    from cissod_bench.leaderboard.intervals import ground_truth
    from cissod_bench.leaderboard.table import Cell, Column, Table
    from cissod_bench.results.record import RESULT_FILE, load_result

    record = load_result(run / RESULT_FILE)
    if record.key.rules != "coco":
        raise UserError(f"{run}: scored by LVIS's rules, for which TIDE's error types are not defined.")
    if not {"detections", "per_class"} <= record.files.keys():
        raise UserError(f"{run}: the record names no detections or no per-class arrays.")
    truth = ground_truth(record, run, annotations)
    detections = read_detections(run / record.files["detections"], truth)
    groups = load_evaluation(run / record.files["per_class"]).groups
    found = tide_errors(truth, detections, max_detections=record.key.max_detections)
    position = {name: index for index, name in enumerate(truth.class_names)}
    counts = {
        group: {name: int(found.by_class[name][[position[member] for member in names]].sum()) for name in ERROR_TYPES}
        for group, names in groups.items()
    }
    shares = group_confusion(
        truth, detections, {group: names for group, names in groups.items() if group != "all"}, min_score=min_score
    )
    if out is not None:
        _write_plots(out, run.name, counts, shares, overwrite)
    if as_json:
        import json

        content = {"errors": counts, "gain": found.gain, "confusion": shares, "min_score": min_score}
        typer.echo(json.dumps(content, indent=2))
        return
    columns = (Column("group", "Group"), *(Column(name, name) for name in ERROR_TYPES))
    rows = [(Cell(group), *(Cell(f"{value:,}") for value in row.values())) for group, row in counts.items()]
    rows.append((Cell("AP50 gained"), *(Cell(f"{100 * found.gain[name]:.1f}") for name in ERROR_TYPES)))
    caption = "Number of errors; last row: points of AP50 (all classes) if the errors of a type were mended."
    print_table(Table("errors", f"{run}: errors", caption, columns, tuple(rows), ranked=0))
    outcomes = ["correct", "within", *shares, "background"]
    titles = {"correct": "right class", "within": "same group"}
    columns = (Column("group", "Objects of"), *(Column(name, titles.get(name, name)) for name in outcomes))
    body = tuple(
        (
            Cell(group),
            *(Cell(f"{100 * row[name] / max(sum(row.values()), 1):.1f}" if name in row else None) for name in outcomes),
        )
        for group, row in shares.items()
    )
    caption = f"What objects are taken for, in percent of the group's objects; scores of {min_score} and more."
    print_table(Table("confusion", f"{run}: confusion of groups", caption, columns, body, ranked=0))


def _write_plots(
    out: Path, name: str, counts: dict[str, dict[str, int]], shares: dict[str, dict[str, int]], overwrite: bool
) -> None:
    from cissod_bench.io import write_bytes
    from cissod_bench.leaderboard.plots import confusion, error_types, render

    figures = {
        "errors": error_types(counts, f"{name}: error types"),
        "confusion": confusion(shares, f"{name}: confusion"),
    }
    files = {
        out / f"{name}-{what}.{kind}": data for what, figure in figures.items() for kind, data in render(figure).items()
    }
    existing = [str(path) for path, data in files.items() if path.exists() and path.read_bytes() != data]
    if existing and not overwrite:
        raise UserError(f"{', '.join(existing)}: exists with other content. Give --overwrite, or another --out.")
    for path, data in files.items():
        write_bytes(path, data)
