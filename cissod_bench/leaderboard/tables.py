"""The tables of a report: our rows with the paper's beside them, the paper's with ours beside them, and all numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cissod_bench.leaderboard.comparable import Entry, Section, differences
from cissod_bench.leaderboard.paper import NEAREST, TABLES, comparison_table
from cissod_bench.leaderboard.table import Cell, Column, Table

Variants = Mapping[tuple[int, str], tuple[str, Mapping[str, Any]]]

PAPER_DETECTOR = "r50-fpn"
"""Name of the preset of the paper's detector: Faster R-CNN with ResNet-50 and FPN (sec. 4.2)."""


def section_table(
    section: Section,
    others: Sequence[Section] = (),
    *,
    metric: str = "AP",
    different: Mapping[str, Collection[str]] = {},
) -> Table:
    """Our rows of one section, with the paper's numbers beside them where it has this task.

    The difference to the paper is given for the paper's schedule and detector only.

    Args:
        section: comparable runs.
        others: the report's sections: of those of one task, the first is what the others say they differ from.
        metric: one of `evaluation.METRICS`; the paper's numbers are AP.
        different: row label -> groups in which it differs from the baseline by more than chance; marked with `*`.
    """
    paper = comparison_table(section.task) if metric == "AP" else None
    references = {row.method: row for row in paper.rows} if paper else {}
    if not any(entry.method in references for entry in section.entries):
        paper = None
    columns = [Column("rank", "#", kind="rank"), Column("method", "Method"), Column("seeds", "Seeds")]
    columns += [Column(f"{group}_{metric}", group, metric, "metric") for group in section.groups]
    if paper:
        columns += [Column(f"{group}_paper", group, "paper", "reference") for group in paper.groups]
    subtract = paper is not None and not section.shortened and section.fields["detector"] == PAPER_DETECTOR
    if paper and subtract:
        columns += [Column(f"{group}_difference", group, "Δ", "difference") for group in paper.groups]
    rows = []
    ranked = sum(not entry.problem for entry in section.entries)
    for index, entry in enumerate(section.entries):
        cells = [
            Cell(str(index + 1) if index < ranked else ""),
            Cell(entry.label + ("†" if section.shortened else "")),
            Cell(str(len(entry.runs)) if not entry.problem else "1"),
        ]
        own = {group: _cell(entry, group, metric) for group in section.groups}
        marked = different.get(entry.label, ())
        cells += [replace(cell, mark="*") if group in marked else cell for group, cell in own.items()]
        if paper:
            # A variant with other options is not what the paper's row is about.
            theirs = references[entry.method].ap if entry.method in references and not entry.options else {}
            cells += [Cell(theirs.get(group)) for group in paper.groups]
            if subtract:
                cells += [_difference(own.get(group), theirs.get(group)) for group in paper.groups]
        rows.append(tuple(cells))
    return Table(
        name=f"{section.task}-{section.fields['split_digest'][:8]}-{section.fields['schedule']}",
        title=section.title,
        caption=_caption(section, metric, subtract),
        columns=tuple(columns),
        rows=tuple(rows),
        ranked=ranked,
        notes=(*_apart_notes(section, others), *section.notes),
    )


def paper_table(number: int, sections: Sequence[Section], variants: Variants = MappingProxyType({})) -> Table:
    """A table of the paper in its form, with our numbers for the same and for embedded tasks beside it.

    Only regular rows stand beside the paper's, from one section of a task: in Tables 1 to 3 the one with the longest
    schedule that has any of them; in Tables 4 and 5 the one that has most of them. There every task on which variants
    were run stands beside the paper's COCO.

    Args:
        number: 1 to 5.
        sections: comparable runs.
        variants: (table, row label) -> (method, its options that differ from the defaults) for rows that are variants
            of a method; other rows are methods with their default options.
    """
    parts = [table for table in TABLES if table.number == number]
    tasks = {part.task for part in parts}
    wanted: list[tuple[str | None, Mapping[str, Any]]] = [
        variants.get((number, row.label), (row.method, {})) for row in parts[0].rows
    ]
    ablations = any(options for _, options in wanted)
    chosen: dict[str, tuple[int, Section]] = {}
    for section in sections:
        found = [row for row in wanted if _row_for(section, *row)]
        if {section.task, NEAREST.get(section.task)} & tasks or any(options for _, options in found):
            weight = len(found) if ablations else min(1, len(found))
            if weight > chosen.get(section.task, (0, section))[0]:
                chosen[section.task] = weight, section
    beside = [section for _, (_, section) in sorted(chosen.items())]
    columns = [Column("method", "Method")]
    for part in parts:
        columns += [Column(f"{part.task}_{group}", group, f"paper: {part.title}", "reference") for group in part.groups]
    for index, section in enumerate(beside):
        mark = "†" if section.shortened else ""
        over = f"ours: {section.task}, {section.fields['schedule']} schedule{mark}"
        columns += [Column(f"ours{index}_{group}", group, over, "metric") for group in section.groups]
    rows = []
    for row, *lines in zip(wanted, *(part.rows for part in parts), strict=True):
        cells = [Cell(lines[0].label)]
        cells += [Cell(value) for line in lines for value in line.ap.values()]
        for section in beside:
            entry = _row_for(section, *row)
            cells += [_cell(entry, group, "AP") for group in section.groups]
        rows.append(tuple(cells))
    title = f"Table {number} of the paper: {' and '.join(part.title for part in parts)}"
    notes = ["Ours beside: embedded tasks repeat the scenario in small, on other data."] if beside else []
    if any(section.shortened for section in beside):
        notes.append("† Shortened schedule.")
    labels = [row.label for row in parts[0].rows]
    unchosen = [section for section in sections if section.task not in chosen]
    notes += [note for section in (*beside, *unchosen) for note in _left_out(section, wanted, labels)]
    return Table(
        name=f"paper-{number}",
        title=title,
        caption=f"AP in percent as printed in the paper (Table {number}).",
        columns=tuple(columns),
        rows=tuple(rows),
        ranked=len(rows),
        notes=tuple(notes),
    )


def tidy_table(sections: Sequence[Section]) -> Table:
    """Every number of every section, one a row: for programs."""
    fields = list(sections[0].fields) if sections else []
    names = [*fields, "method", "options", "seeds", "problem", "group", "metric"]
    columns = [Column(name, name) for name in names]
    columns += [Column("mean", "mean"), Column("std", "std"), Column("t_interval", "t_interval")]
    columns += [Column("paper", "paper"), Column("runs", "runs")]
    rows = []
    for section in sections:
        paper = comparison_table(section.task)
        references = {row.method: row for row in paper.rows} if paper else {}
        for entry in section.entries:
            options = ";".join(f"{name}={value}" for name, value in sorted(entry.options.items()))
            reference = references.get(entry.method) if not entry.options else None
            for group in section.groups:
                for metric in section_metrics(section):
                    found = entry.spread(group, metric)
                    cells = [Cell(_text(section.fields[name])) for name in fields]
                    cells += [Cell(entry.method), Cell(options), Cell(" ".join(map(str, entry.seeds)))]
                    cells += [Cell(entry.problem), Cell(group), Cell(metric)]
                    numbers = (found.mean, found.std, found.interval) if found else (None, None, None)
                    cells += [Cell(None if number is None else 100 * number) for number in numbers]
                    cells.append(Cell(reference.ap.get(group) if reference and metric == "AP" else None))
                    cells.append(Cell(" ".join(str(run.path.parent) for run in entry.runs)))
                    rows.append(tuple(cells))
    return Table("results", "All results", "", tuple(columns), tuple(rows), ranked=0)


def section_metrics(section: Section) -> tuple[str, ...]:
    """Names of the metrics that the section's records hold."""
    return tuple(section.entries[0].runs[0].result.metrics["all"])


def _cell(entry: Entry | None, group: str, metric: str) -> Cell:
    found = entry.spread(group, metric) if entry else None
    if found is None:
        return Cell(None)
    return Cell(100 * found.mean, None if found.std is None else 100 * found.std)


def _difference(ours: Cell | None, theirs: float | None) -> Cell:
    if ours is None or theirs is None or not isinstance(ours.value, float):
        return Cell(None)
    return Cell(ours.value - theirs)


def _row_for(section: Section, method: str | None, options: Mapping[str, Any]) -> Entry | None:
    """The regular row of a method with exactly these changed options."""
    regular = (entry for entry in section.entries if not entry.problem)
    return next((entry for entry in regular if entry.method == method and entry.options == options), None)


def _left_out(
    section: Section, wanted: Sequence[tuple[str | None, Mapping[str, Any]]], labels: Sequence[str]
) -> list[str]:
    """What keeps variants that were run out of a table of the paper."""
    notes = []
    for (method, options), label in zip(wanted, labels, strict=True):
        if options and _row_for(section, method, options) is None:
            apart = (entry.problem for entry in section.entries if (entry.method, entry.options) == (method, options))
            notes += [f"{label} on {section.task} is left out: {problem}." for problem in dict.fromkeys(apart)]
    return notes


def _caption(section: Section, metric: str, subtract: bool) -> str:
    sizes = section.entries[0].runs[0].result.groups
    parts = []
    for group in section.groups:
        left_out = sizes[group].without_ground_truth
        without = f", {left_out} without ground truth left out" if left_out else ""
        parts.append(f"{group}: {sizes[group].classes} classes{without}")
    seeds = max(len(entry.runs) for entry in section.entries)
    spread = "Mean ± standard deviation over training seeds. " if seeds > 1 else ""
    fields = section.fields
    delta = " Δ: ours minus the paper's." if subtract else ""
    return (
        f"{metric} in percent ({'; '.join(parts)}). {spread}Split {fields['split_digest'][:12]}, "
        f"detector {fields['detector']}, {fields['evaluator']} with {fields['rules'].upper()} rules, "
        f"{fields['max_detections']} detections per image.{delta}"
    )


def _apart_notes(section: Section, others: Sequence[Section]) -> list[str]:
    notes = ["† Shortened schedule: not the length that the protocol asks for."] if section.shortened else []
    of_task = [other for other in others if other.task == section.task]
    if len(of_task) > 1 and of_task[0] is section:
        notes.append(
            f"Runs of this task that are not comparable stand in {len(of_task) - 1} other tables, which say why."
        )
    elif len(of_task) > 1:
        reasons = "; ".join(differences(section, of_task[0]))
        notes.append(f"Not comparable with “{of_task[0].title}”: {reasons}.")
    return notes


def _text(value: object) -> str:
    return "" if value is None else str(value)
