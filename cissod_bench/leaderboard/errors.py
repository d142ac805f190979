"""Why a run's detections are wrong, by class group: TIDE's error types, and what objects are taken for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.errors import UserError
from cissod_bench.evaluation.groups import load_evaluation
from cissod_bench.evaluation.inputs import check_score, read_detections
from cissod_bench.evaluation.tide import ERROR_TYPES, group_confusion, tide_errors
from cissod_bench.io import write_bytes
from cissod_bench.leaderboard.intervals import ground_truth
from cissod_bench.leaderboard.run_files import is_part
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.results.run_folder import RunFolder


@dataclass(frozen=True)
class RunErrors:
    """Errors of one run.

    Attributes:
        run: its folder.
        counts: group -> error type -> number of errors.
        gain: error type -> AP50 of all classes, in [0, 1], that is gained if its errors were fixed.
        confusion: group -> what its objects are taken for -> number of objects.
        min_score: detections below do not count in the confusion.
    """

    run: Path
    counts: dict[str, dict[str, int]]
    gain: Mapping[str, float]
    confusion: dict[str, dict[str, int]]
    min_score: float


def errors_of(run: Path, *, annotations: Path | None = None, min_score: float = 0.3) -> RunErrors:
    """Look for the errors of a run.

    Args:
        run: its folder.
        annotations: ground truth; default: the file that the record names.
        min_score: detections below do not count in the confusion of groups.

    Raises:
        UserError: no record, no detections or ground truth, or a bound that is no score.
    """
    check_score(min_score)
    record = RunFolder(run).result()
    if not {"detections", "per_class"} <= record.files.keys():
        raise UserError(f"{run}: the record names no detections or no per-class arrays.")
    truth = ground_truth(record, run, annotations)
    detections = read_detections(run / record.files["detections"], truth)
    groups = load_evaluation(run / record.files["per_class"]).groups
    lvis = record.key.rules == "lvis"
    found = tide_errors(truth, detections, max_detections=record.key.max_detections, lvis=lvis)
    position = {name: index for index, name in enumerate(truth.class_names)}
    counts = {
        group: {name: int(found.by_class[name][[position[member] for member in names]].sum()) for name in ERROR_TYPES}
        for group, names in groups.items()
    }
    confusion = group_confusion(
        truth,
        detections,
        {group: names for group, names in groups.items() if is_part(group)},
        min_score=min_score,
        max_detections=record.key.max_detections,
        lvis=lvis,
    )
    return RunErrors(run, counts, found.gain, confusion, min_score)


def write_plots(found: RunErrors, out: Path, *, overwrite: bool = False) -> None:
    """Plot errors and confusion as PNG, SVG and PDF.

    Args:
        found: the errors.
        out: folder, which is made.
        overwrite: replace existing plots.

    Raises:
        UserError: a plot exists with other content.
    """
    from cissod_bench.leaderboard.figures.of_errors import confusion, error_types
    from cissod_bench.leaderboard.figures.style import render

    name = found.run.resolve().name  # of `.` as well
    figures = {
        "errors": (error_types(found.counts), "error types by class group"),
        "confusion": (confusion(found.confusion), "what objects are mistaken for, by class group"),
    }
    files = {
        out / f"{name}-{what}.{kind}": data
        for what, (figure, title) in figures.items()
        for kind, data in render(figure, f"{name}: {title}").items()
    }
    existing = [str(path) for path, data in files.items() if path.exists() and path.read_bytes() != data]
    if existing and not overwrite:
        raise UserError(f"{', '.join(existing)}: exists with other content. Give --overwrite, or another --out.")
    for path, data in files.items():
        write_bytes(path, data)


def error_table(found: RunErrors) -> Table:
    """Errors by group and type, and what AP50 would gain."""
    columns = (Column("group", "Group"), *(Column(name, name, kind="count") for name in ERROR_TYPES))
    rows = [(Cell(group), *map(Cell, row.values())) for group, row in found.counts.items()]
    rows.append((Cell("AP50 gained"), *(Cell(float(found.gain[name])) for name in ERROR_TYPES)))
    caption = "Number of errors; last row: points of AP50 (all classes) if the errors of a type were fixed."
    return Table("errors", f"{found.run}: errors", caption, columns, tuple(rows), ranked=0)


def confusion_table(found: RunErrors) -> Table:
    """What the objects of each group are taken for, in percent."""
    outcomes = ["correct", "within", *found.confusion, "background"]
    titles = {"correct": "right class", "within": "same group"}
    columns = (
        Column("group", "Objects of"),
        *(Column(name, titles.get(name, name), kind="reference") for name in outcomes),
    )
    body = tuple(
        (
            Cell(group),
            *(Cell(row[name] / max(sum(row.values()), 1) if name in row else None) for name in outcomes),
        )
        for group, row in found.confusion.items()
    )
    caption = f"What objects are taken for, in percent of the group's objects; scores of {found.min_score} and more."
    return Table("confusion", f"{found.run}: confusion of groups", caption, columns, body, ranked=0)
