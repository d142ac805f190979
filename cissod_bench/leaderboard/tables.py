"""The tables of a report: comparable runs, and the paper's tables next to runs in its setting."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cissod_bench.leaderboard.comparable import Row, RunSet, Spread, differences
from cissod_bench.leaderboard.gains import SUPERVISED, gain, gain_groups
from cissod_bench.leaderboard.paper import TABLES, comparison_table
from cissod_bench.leaderboard.provenance import equal_rows_notes, marks, provenance_notes
from cissod_bench.leaderboard.setting import Standards, departures, is_standard, not_standard, other_options
from cissod_bench.leaderboard.table import Cell, Column, Table

Variants = Mapping[tuple[int, str], tuple[str, Mapping[str, Any]]]
_Wanted = tuple[str | None, Mapping[str, Any]]
"""The method of a row of the paper, and its options that differ from the defaults."""

DISAGREES = "≠"
"""Mark of a number that disagrees with the paper's."""
LEAST_DISAGREEMENT = 1.0
"""Points of AP below which no number disagrees with the paper's, which has no spread."""


def run_set_table(
    run_set: RunSet,
    others: Sequence[RunSet] = (),
    *,
    metric: str = "AP",
    different: Mapping[str, Collection[str]] = {},
    standards: Standards = MappingProxyType({}),
) -> Table:
    """The rows of one set of runs; next to the paper's numbers if the set is of a task of the paper in its setting.

    Args:
        run_set: comparable runs.
        others: all sets of the report; those of one task name their differences to the first of them.
        metric: one of `evaluation.METRICS`; the paper's numbers are AP.
        different: row label -> groups in which it differs from the baseline by more than chance; marked with `*`.
        standards: the methods as they are today; the paper's numbers stand beside these.
    """
    paper = comparison_table(run_set.task) if metric == "AP" else None
    departed = departures(run_set) if paper else []
    references = {row.method: row for row in paper.rows} if paper else {}
    compared = [row for row in run_set.rows if row.method in references and not departed]
    apart = [(row, reason) for row in compared if not row.options and (reason := not_standard(row, standards))]
    if not any(is_standard(row, standards) for row in compared):
        paper = None
    columns = [Column("rank", "#", kind="rank"), Column("method", "Method"), Column("seeds", "Seeds", kind="count")]
    columns += [Column(f"{group}_{metric}", group, metric, "metric") for group in run_set.groups]
    gaining = gain_groups(run_set)
    columns += [Column(f"{group}_gain", group, f"gain over {SUPERVISED}", "difference") for group in gaining]
    if paper:
        columns += [Column(f"{group}_paper", group, "paper", "reference") for group in paper.groups]
        columns += [Column(f"{group}_difference", group, "Δ", "difference") for group in paper.groups]
    body = []
    ranked = sum(row.ranked for row in run_set.rows)
    for index, row in enumerate(run_set.rows):
        cells = [
            Cell(index + 1 if index < ranked else None),
            Cell(row.label + ("†" if run_set.shortened else "") + marks(row.results)),
            Cell(len(row.runs)),
        ]
        own = {group: _cell(row, group, metric) for group in run_set.groups}
        marked = different.get(row.label, ())
        cells += [replace(cell, mark="*") if group in marked else cell for group, cell in own.items()]
        gains = [gain(run_set, row, group, metric) for group in gaining]
        cells += [Cell(None) if each is None else Cell(each.mean, each.std) for each in gains]
        if paper:
            # A variant with other options is not what the paper's row is about.
            theirs = references[row.method].ap if row in compared and is_standard(row, standards) else {}
            cells += [_printed(theirs.get(group)) for group in paper.groups]
            cells += [_difference(row.spread(group, metric), theirs.get(group)) for group in paper.groups]
        body.append(tuple(cells))
    notes = (
        *_apart_notes(run_set, others),
        *_departure_notes(departed),
        *(f"{row.label}: the paper's number does not stand here: {reason}." for row, reason in apart),
        *_unnamed_options_notes(run_set, standards),
        *run_set.notes,
        *equal_rows_notes([(row.label, row.results) for row in run_set.rows]),
        *_gain_notes(run_set, gaining, metric),
        *_disagreement_note(body),
    )
    return Table(
        name=run_set.name,
        title=run_set.title,
        caption=_caption(run_set, metric, subtract=paper is not None),
        columns=tuple(columns),
        rows=tuple(body),
        ranked=ranked,
        notes=notes,
    )


def _unnamed_options_notes(run_set: RunSet, standards: Standards) -> Iterator[str]:
    """Rows of today's methods whose records have other options than their names and today's defaults say."""
    for row in run_set.rows:
        standard = standards.get(row.method)
        if standard and row.version == standard.version and (names := other_options(row, standard, row.options)):
            listed = ", ".join(names)
            yield f"{row.label}: its records have other options than the defaults: {listed} that its name does not say."


def paper_table(
    number: int,
    run_sets: Sequence[RunSet],
    variants: Variants = MappingProxyType({}),
    standards: Standards = MappingProxyType({}),
) -> Table | None:
    """A table of the paper in its original layout, next to runs of the same tasks in the paper's setting.

    Only regular rows are shown, all of a task from one set of runs: the one that has most of them. Sets in another
    setting are named in the notes. None where no task of the table was run.

    Args:
        number: 1 to 5.
        run_sets: sets of comparable runs.
        variants: (table, row label) -> (method, its options that differ from the defaults) for rows that are variants
            of a method; other rows are methods with their default options.
        standards: the methods as they are today; other versions are left out.
    """
    parts = [table for table in TABLES if table.number == number]
    tasks = [part.task for part in parts]
    of_tasks = [run_set for run_set in run_sets if run_set.task in tasks]
    if not of_tasks:
        return None
    wanted: list[_Wanted] = [variants.get((number, row.label), (row.method, {})) for row in parts[0].rows]
    in_setting = [run_set for run_set in of_tasks if not departures(run_set)]
    chosen: dict[str, RunSet] = {}
    for run_set in sorted(
        in_setting, key=lambda each: -sum(_row_for(each, variant, standards) is not None for variant in wanted)
    ):
        chosen.setdefault(run_set.task, run_set)
    shown = [chosen[task] for task in tasks if task in chosen]
    columns = [Column("method", "Method")]
    for part in parts:
        columns += [Column(f"{part.task}_{group}", group, f"paper: {part.title}", "reference") for group in part.groups]
    for run_set in shown:
        over = f"measured: {run_set.task}"
        columns += [Column(f"measured_{run_set.task}_{group}", group, over, "metric") for group in run_set.groups]
    body = []
    for variant, *lines in zip(wanted, *(part.rows for part in parts), strict=True):
        cells = [Cell(lines[0].label)]
        cells += [_printed(value) for line in lines for value in line.ap.values()]
        printed = {part.task: line.ap for part, line in zip(parts, lines, strict=True)}
        for run_set in shown:
            row = _row_for(run_set, variant, standards)
            own = marks(row.results) if row else ""
            for group in run_set.groups:
                mark = _mark(row.spread(group, "AP") if row else None, printed[run_set.task].get(group)) + own
                cells.append(replace(_cell(row, group, "AP"), mark=mark))
        body.append(tuple(cells))
    labels = [row.label for row in parts[0].rows]
    notes = [f"Measured: {run_set.title}." for run_set in shown]
    notes += [f"{each.title} is left out: {'; '.join(departures(each))}." for each in of_tasks if departures(each)]
    notes += [f"{each.title} is left out: another set has more rows." for each in in_setting if each not in shown]
    notes += [note for run_set in shown for note in _left_out(run_set, wanted, labels, standards)]
    notes += [note for run_set in shown for note in _provenance(run_set, wanted, standards)]
    notes += _disagreement_note(body)
    return Table(
        name=f"paper-{number}",
        title=f"Table {number} of the paper: {' and '.join(part.title for part in parts)}",
        caption=f"AP in percent as printed in the paper (Table {number}); “Ours” is the paper's word for gbs.",
        columns=tuple(columns),
        rows=tuple(body),
        ranked=len(body),
        notes=tuple(notes),
    )


def _cell(row: Row | None, group: str, metric: str) -> Cell:
    found = row.spread(group, metric) if row else None
    if found is None:
        return Cell(None)
    return Cell(found.mean, found.std)


def _printed(percent: float | None) -> Cell:
    """A number of the paper, which prints AP in percent with one decimal, as a fraction."""
    return Cell(None if percent is None else round(percent / 100, 6))


def disagrees(ours: Spread | None, theirs: float | None) -> bool | None:
    """Whether a mean over seeds differs from the paper's number by more than 1 point and by more than two standard
    deviations over seeds, where there are several; None where one of the numbers is missing.

    Args:
        ours: in [0, 1].
        theirs: in percent.
    """
    if ours is None or theirs is None:
        return None
    return abs(100 * ours.mean - theirs) > max(LEAST_DISAGREEMENT, 200 * (ours.std or 0.0))


def _mark(ours: Spread | None, theirs: float | None) -> str:
    return DISAGREES if disagrees(ours, theirs) else ""


def _difference(ours: Spread | None, theirs: float | None) -> Cell:
    if ours is None or theirs is None:
        return Cell(None)
    return Cell(ours.mean - theirs / 100, mark=_mark(ours, theirs))


def _disagreement_note(body: Sequence[tuple[Cell, ...]]) -> list[str]:
    """What the mark of disagreement means, where a cell has it."""
    if not any(DISAGREES in cell.mark for cells in body for cell in cells):
        return []
    return [
        f"{DISAGREES} differs from the paper's number by more than {LEAST_DISAGREEMENT:g} point and, where there are "
        "several seeds, by more than two standard deviations over them."
    ]


def _row_for(run_set: RunSet, wanted: _Wanted, standards: Standards) -> Row | None:
    """The regular row of a method at today's version with exactly these changed options."""
    method, options = wanted
    regular = (row for row in run_set.rows if row.method == method and not row.problem and not row.beside)
    return next((row for row in regular if is_standard(row, standards, options)), None)


def _left_out(run_set: RunSet, wanted: Sequence[_Wanted], labels: Sequence[str], standards: Standards) -> list[str]:
    """Why rows of a method with the wanted options are missing from a table of the paper."""
    notes = []
    for (method, options), label in zip(wanted, labels, strict=True):
        alike = [row for row in run_set.rows if (row.method, row.options) == (method, options) and not row.beside]
        for row in alike:
            if reason := row.problem or not_standard(row, standards, options):
                notes.append(f"{label} on {run_set.task}: {row.label} is left out: {reason}.")
    return list(dict.fromkeys(notes))


def _provenance(run_set: RunSet, wanted: Sequence[_Wanted], standards: Standards) -> list[str]:
    """What readers must know of where the rows of a table of the paper come from."""
    rows = [row for variant in wanted if (row := _row_for(run_set, variant, standards)) is not None]
    return [note for row in rows for note in provenance_notes(row.label, row.results)]


def _gain_notes(run_set: RunSet, groups: Sequence[str], metric: str) -> list[str]:
    """Rows whose gain is over fewer training seeds than their other numbers."""
    notes = []
    for row in run_set.rows:
        found = gain(run_set, row, groups[0], metric) if groups else None
        if found is not None and found.count < len(row.runs):
            notes.append(
                f"{row.label}: gain over {found.count} of {len(row.runs)} training seeds, those of {SUPERVISED}."
            )
    return notes


def _caption(run_set: RunSet, metric: str, *, subtract: bool) -> str:
    sizes = run_set.rows[0].runs[0].result.groups
    parts = []
    for group in run_set.groups:
        left_out = sizes[group].without_ground_truth
        without = f", {left_out} without ground truth left out" if left_out else ""
        parts.append(f"{group}: {sizes[group].classes} classes{without}")
    seeds = max(len(row.runs) for row in run_set.rows)
    spread = "Mean ± standard deviation over training seeds. " if seeds > 1 else ""
    fields = run_set.fields
    gain = "Gain: difference to the supervised run with the same training seed, before rounding."
    delta = f" {gain}" if gain_groups(run_set) else ""
    delta += " Δ: measured minus the paper's." if subtract else ""
    return (
        f"{metric} in percent ({'; '.join(parts)}). {spread}Split {fields['split_digest'][:12]}, "
        f"detector {fields['detector']}, {fields['evaluator']} with {fields['rules'].upper()} rules, "
        f"{fields['max_detections']} detections per image.{delta}"
    )


def _apart_notes(run_set: RunSet, others: Sequence[RunSet]) -> list[str]:
    notes = ["† Shortened schedule: not the length that the protocol asks for."] if run_set.shortened else []
    of_task = [other for other in others if other.task == run_set.task]
    if len(of_task) > 1 and of_task[0] is run_set:
        count = len(of_task) - 1
        where = "another table, which says" if count == 1 else f"{count} other tables, which say"
        notes.append(f"Runs of this task that are not comparable are in {where} why.")
    elif len(of_task) > 1:
        reasons = "; ".join(differences(run_set, of_task[0]))
        notes.append(f"Not comparable with “{of_task[0].title}”: {reasons}.")
    return notes


def _departure_notes(departed: Sequence[str]) -> list[str]:
    return [f"The paper's numbers do not stand here: {'; '.join(departed)}."] if departed else []
