"""The tables of a report: our rows next to the paper's numbers, the paper's tables next to ours, and all numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cissod_bench.leaderboard.comparable import Row, RunSet, differences
from cissod_bench.leaderboard.paper import NEAREST, TABLES, comparison_table
from cissod_bench.leaderboard.provenance import marks
from cissod_bench.leaderboard.table import Cell, Column, Table

Variants = Mapping[tuple[int, str], tuple[str, Mapping[str, Any]]]

PAPER_DETECTOR = "r50-fpn"
"""Name of the preset of the paper's detector: Faster R-CNN with ResNet-50 and FPN (sec. 4.2)."""


def run_set_table(
    run_set: RunSet,
    others: Sequence[RunSet] = (),
    *,
    metric: str = "AP",
    different: Mapping[str, Collection[str]] = {},
) -> Table:
    """Our rows of one set of runs, next to the paper's numbers if the paper has this task.

    The difference to the paper is given only for the schedule and detector of the paper.

    Args:
        run_set: comparable runs.
        others: all sets of the report; those of one task name their differences to the first of them.
        metric: one of `evaluation.METRICS`; the paper's numbers are AP.
        different: row label -> groups in which it differs from the baseline by more than chance; marked with `*`.
    """
    paper = comparison_table(run_set.task) if metric == "AP" else None
    references = {row.method: row for row in paper.rows} if paper else {}
    if not any(row.method in references for row in run_set.rows):
        paper = None
    columns = [Column("rank", "#", kind="rank"), Column("method", "Method"), Column("seeds", "Seeds")]
    columns += [Column(f"{group}_{metric}", group, metric, "metric") for group in run_set.groups]
    if paper:
        columns += [Column(f"{group}_paper", group, "paper", "reference") for group in paper.groups]
    subtract = paper is not None and not run_set.shortened and run_set.fields["detector"] == PAPER_DETECTOR
    if paper and subtract:
        columns += [Column(f"{group}_difference", group, "Δ", "difference") for group in paper.groups]
    body = []
    ranked = sum(not row.problem for row in run_set.rows)
    for index, row in enumerate(run_set.rows):
        cells = [
            Cell(str(index + 1) if index < ranked else ""),
            Cell(row.label + ("†" if run_set.shortened else "") + marks([run.result for run in row.runs])),
            Cell(str(len(row.runs)) if not row.problem else "1"),
        ]
        own = {group: _cell(row, group, metric) for group in run_set.groups}
        marked = different.get(row.label, ())
        cells += [replace(cell, mark="*") if group in marked else cell for group, cell in own.items()]
        if paper:
            # A variant with other options is not what the paper's row is about.
            theirs = references[row.method].ap if row.method in references and not row.options else {}
            cells += [Cell(theirs.get(group)) for group in paper.groups]
            if subtract:
                cells += [_difference(own.get(group), theirs.get(group)) for group in paper.groups]
        body.append(tuple(cells))
    return Table(
        name=f"{run_set.task}-{run_set.fields['split_digest'][:8]}-{run_set.fields['schedule']}",
        title=run_set.title,
        caption=_caption(run_set, metric, subtract),
        columns=tuple(columns),
        rows=tuple(body),
        ranked=ranked,
        notes=(*_apart_notes(run_set, others), *run_set.notes),
    )


def paper_table(number: int, run_sets: Sequence[RunSet], variants: Variants = MappingProxyType({})) -> Table:
    """A table of the paper in its original layout, next to our numbers for the same tasks and for embedded tasks.

    Only regular rows are shown, all of a task from one set of runs: in Tables 1 to 3 the set with the longest schedule
    that has any of them, in Tables 4 and 5 the set that has most of them. In the latter two every task on which
    variants were run is shown next to the paper's COCO.

    Args:
        number: 1 to 5.
        run_sets: sets of comparable runs.
        variants: (table, row label) -> (method, its options that differ from the defaults) for rows that are variants
            of a method; other rows are methods with their default options.
    """
    parts = [table for table in TABLES if table.number == number]
    tasks = {part.task for part in parts}
    wanted: list[tuple[str | None, Mapping[str, Any]]] = [
        variants.get((number, row.label), (row.method, {})) for row in parts[0].rows
    ]
    ablations = any(options for _, options in wanted)
    chosen: dict[str, tuple[int, RunSet]] = {}
    for run_set in run_sets:
        found = [variant for variant in wanted if _row_for(run_set, *variant)]
        if {run_set.task, NEAREST.get(run_set.task)} & tasks or any(options for _, options in found):
            weight = len(found) if ablations else min(1, len(found))
            if weight > chosen.get(run_set.task, (0, run_set))[0]:
                chosen[run_set.task] = weight, run_set
    beside = [run_set for _, (_, run_set) in sorted(chosen.items())]
    columns = [Column("method", "Method")]
    for part in parts:
        columns += [Column(f"{part.task}_{group}", group, f"paper: {part.title}", "reference") for group in part.groups]
    for index, run_set in enumerate(beside):
        mark = "†" if run_set.shortened else ""
        over = f"ours: {run_set.task}, {run_set.fields['schedule']} schedule{mark}"
        columns += [Column(f"ours{index}_{group}", group, over, "metric") for group in run_set.groups]
    body = []
    for variant, *lines in zip(wanted, *(part.rows for part in parts), strict=True):
        cells = [Cell(lines[0].label)]
        cells += [Cell(value) for line in lines for value in line.ap.values()]
        for run_set in beside:
            row = _row_for(run_set, *variant)
            cells += [_cell(row, group, "AP") for group in run_set.groups]
        body.append(tuple(cells))
    title = f"Table {number} of the paper: {' and '.join(part.title for part in parts)}"
    notes = []
    if beside:
        notes.append("Ours for comparison; embedded tasks repeat the scenario on a small scale, with other data.")
    if any(run_set.shortened for run_set in beside):
        notes.append("† Shortened schedule.")
    labels = [row.label for row in parts[0].rows]
    unchosen = [run_set for run_set in run_sets if run_set.task not in chosen]
    notes += [note for run_set in (*beside, *unchosen) for note in _left_out(run_set, wanted, labels)]
    return Table(
        name=f"paper-{number}",
        title=title,
        caption=f"AP in percent as printed in the paper (Table {number}).",
        columns=tuple(columns),
        rows=tuple(body),
        ranked=len(body),
        notes=tuple(notes),
    )


def tidy_table(run_sets: Sequence[RunSet]) -> Table:
    """Every number of every set of runs, one per row, for programs."""
    fields = list(run_sets[0].fields) if run_sets else []
    names = [*fields, "method", "options", "seeds", "problem", "group", "metric"]
    columns = [Column(name, name) for name in names]
    columns += [Column("mean", "mean"), Column("std", "std"), Column("t_interval", "t_interval")]
    columns += [Column("paper", "paper"), Column("runs", "runs")]
    body = []
    for run_set in run_sets:
        paper = comparison_table(run_set.task)
        references = {row.method: row for row in paper.rows} if paper else {}
        for row in run_set.rows:
            options = ";".join(f"{name}={value}" for name, value in sorted(row.options.items()))
            reference = references.get(row.method) if not row.options else None
            for group in run_set.groups:
                for metric in metric_names(run_set):
                    found = row.spread(group, metric)
                    cells = [Cell(_text(run_set.fields[name])) for name in fields]
                    cells += [Cell(row.method), Cell(options), Cell(" ".join(map(str, row.seeds)))]
                    cells += [Cell(row.problem), Cell(group), Cell(metric)]
                    numbers = (found.mean, found.std, found.interval) if found else (None, None, None)
                    cells += [Cell(None if number is None else 100 * number) for number in numbers]
                    cells.append(Cell(reference.ap.get(group) if reference and metric == "AP" else None))
                    cells.append(Cell(" ".join(str(run.path.parent) for run in row.runs)))
                    body.append(tuple(cells))
    return Table("results", "All results", "", tuple(columns), tuple(body), ranked=0)


def metric_names(run_set: RunSet) -> tuple[str, ...]:
    """Names of the metrics that the set's records hold."""
    return tuple(run_set.rows[0].runs[0].result.metrics["all"])


def _cell(row: Row | None, group: str, metric: str) -> Cell:
    found = row.spread(group, metric) if row else None
    if found is None:
        return Cell(None)
    return Cell(100 * found.mean, None if found.std is None else 100 * found.std)


def _difference(ours: Cell | None, theirs: float | None) -> Cell:
    if ours is None or theirs is None or not isinstance(ours.value, float):
        return Cell(None)
    return Cell(ours.value - theirs)


def _row_for(run_set: RunSet, method: str | None, options: Mapping[str, Any]) -> Row | None:
    """The regular row of a method with exactly these changed options."""
    regular = (row for row in run_set.rows if not row.problem)
    return next((row for row in regular if row.method == method and row.options == options), None)


def _left_out(
    run_set: RunSet, wanted: Sequence[tuple[str | None, Mapping[str, Any]]], labels: Sequence[str]
) -> list[str]:
    """Why variants that were run are missing from a table of the paper."""
    notes = []
    for (method, options), label in zip(wanted, labels, strict=True):
        if options and _row_for(run_set, method, options) is None:
            apart = (row.problem for row in run_set.rows if (row.method, row.options) == (method, options))
            notes += [f"{label} on {run_set.task} is left out: {problem}." for problem in dict.fromkeys(apart)]
    return notes


def _caption(run_set: RunSet, metric: str, subtract: bool) -> str:
    sizes = run_set.rows[0].runs[0].result.groups
    parts = []
    for group in run_set.groups:
        left_out = sizes[group].without_ground_truth
        without = f", {left_out} without ground truth left out" if left_out else ""
        parts.append(f"{group}: {sizes[group].classes} classes{without}")
    seeds = max(len(row.runs) for row in run_set.rows)
    spread = "Mean ± standard deviation over training seeds. " if seeds > 1 else ""
    fields = run_set.fields
    delta = " Δ: ours minus the paper's." if subtract else ""
    return (
        f"{metric} in percent ({'; '.join(parts)}). {spread}Split {fields['split_digest'][:12]}, "
        f"detector {fields['detector']}, {fields['evaluator']} with {fields['rules'].upper()} rules, "
        f"{fields['max_detections']} detections per image.{delta}"
    )


def _apart_notes(run_set: RunSet, others: Sequence[RunSet]) -> list[str]:
    notes = ["† Shortened schedule: not the length that the protocol asks for."] if run_set.shortened else []
    of_task = [other for other in others if other.task == run_set.task]
    if len(of_task) > 1 and of_task[0] is run_set:
        notes.append(
            f"Runs of this task that are not comparable are in {len(of_task) - 1} other tables, which say why."
        )
    elif len(of_task) > 1:
        reasons = "; ".join(differences(run_set, of_task[0]))
        notes.append(f"Not comparable with “{of_task[0].title}”: {reasons}.")
    return notes


def _text(value: object) -> str:
    return "" if value is None else str(value)
