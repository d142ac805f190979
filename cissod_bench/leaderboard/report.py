"""From run folders to a report: reading the records, making the tables, writing the files."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation import METRICS
from cissod_bench.evaluation.bootstrap import check_samples
from cissod_bench.io import write_bytes
from cissod_bench.leaderboard.comparable import RunSet, comparable_run_sets
from cissod_bench.leaderboard.every_number import every_number, tidy_table
from cissod_bench.leaderboard.figures.of_report import Picture, pictures_of_budgets, pictures_of_sets
from cissod_bench.leaderboard.figures.style import KINDS, render
from cissod_bench.leaderboard.intervals import BASELINE, IntervalRow, Progress, image_intervals, intervals_table
from cissod_bench.leaderboard.over_splits import over_splits
from cissod_bench.leaderboard.page import html_page
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.leaderboard.series import MOST_ROWS, Charts, charts_of
from cissod_bench.leaderboard.setting import Standards
from cissod_bench.leaderboard.table import Table
from cissod_bench.leaderboard.tables import Variants, paper_table, run_set_table
from cissod_bench.leaderboard.writers import comma_separated, json_rows, latex, markdown, markdown_text
from cissod_bench.results.record import Rejected, find_results, load_results

NO_DETECTIONS = "no row has its detections here; those of published runs are in the repository alone."
MOST_SETS = 6
"""Sets of runs that have charts and plots, the first ones, as many as there are tasks of the paper and embedded ones.
Real runs have five figures a set, of which each takes half a second: all sets of a large report would take minutes."""


@dataclass(frozen=True)
class Report:
    """The content of a report before it is written.

    Attributes:
        run_sets: sets of comparable runs.
        tables: one for each set, in the same order.
        images: tables of the spread over images, one for each set; empty without bootstrap samples.
        splits: means over splits, for sets that differ in their split alone.
        paper: the paper's tables next to what was measured, those of which a task was run.
        results: every number, one per row.
        rejected: records that were left out, with the reason.
        metric: what the tables of the runs show.
        standards: the methods as they are today.
        intervals: for each set its rows over images; empty without bootstrap samples.
        files: reads the logs of the runs.
    """

    run_sets: tuple[RunSet, ...]
    tables: tuple[Table, ...]
    images: tuple[Table, ...]
    splits: tuple[Table, ...]
    paper: tuple[Table, ...]
    results: Table
    rejected: tuple[Rejected, ...]
    metric: str = "AP"
    standards: Standards = field(default_factory=dict)
    intervals: tuple[tuple[IntervalRow, ...], ...] = ()
    files: RunFiles = field(default_factory=RunFiles)

    @functools.cached_property
    def charts(self) -> tuple[Charts, ...]:
        """The data of the charts of the first sets. The first use reads the logs of their runs."""
        return tuple(charts_of(run_set, self.files) for run_set in self.run_sets[:MOST_SETS])

    @functools.cached_property
    def pictures(self) -> tuple[list[list[Picture]], list[Picture]]:
        """The figures of each set that has charts, and those of several sets."""
        return pictures_of_sets(self.run_sets, self.charts, self.metric), pictures_of_budgets(self.run_sets)

    @property
    def not_drawn(self) -> str:
        """What has no charts, as a sentence; empty if everything has."""
        rows = max(len(run_set.rows) for run_set in self.run_sets)
        limits = [f"the first {MOST_SETS} of {len(self.run_sets)} tables"] * (len(self.run_sets) > MOST_SETS)
        limits += [f"the first {MOST_ROWS} rows of a table"] * (rows > MOST_ROWS)
        return f"Charts and plots are of {' and of '.join(limits)}." if limits else ""

    @property
    def left_out(self) -> tuple[Rejected, ...]:
        """All files that were left out: records, and what charts would have been made from."""
        return (*self.rejected, *self.files.left_out)

    def numbers_as_json(self) -> str:
        """Every number as JSON, one row of a table per line: `every_number`."""
        return json_rows(every_number(self.run_sets, self.standards, self.intervals))

    @property
    def ablations(self) -> tuple[Table, ...]:
        """The paper's Tables 4 and 5."""
        return tuple(table for table in self.paper if table.name in ("paper-4", "paper-5"))


def make_report(
    folders: Sequence[Path],
    *,
    metric: str = "AP",
    samples: int = 0,
    baseline: str = BASELINE,
    variants: Variants = MappingProxyType({}),
    standards: Standards = MappingProxyType({}),
    published: Path | None = None,
    progress: Progress = iter,
) -> Report:
    """Read all records below some folders and make the tables.

    Args:
        folders: run folders, or folders that hold them; may be empty with `published`.
        metric: what the tables of the runs show, one of `evaluation.METRICS`.
        samples: bootstrap samples over images for the intervals and the marks of difference; 0: none.
        baseline: method that the others are compared with.
        variants: see `tables.paper_table`; with them the paper's ablations, Tables 4 and 5, are shown as well.
        standards: the methods as they are today; the paper's numbers stand beside these alone.
        published: folder of published runs, which stand beside those that they are comparable with, or alone.
        progress: wraps the loop over samples.

    Raises:
        UserError: a folder does not exist, there is no usable record, the metric or the baseline is unknown, there
            are too few samples, or, with samples, the detections or the ground truth of all tables no longer exist.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if samples != 0:
        check_samples(samples)
    results, rejected = load_results(folders) if folders or published is None else ([], [])
    some = published is not None and bool(find_results([published])[0])
    beside, damaged = load_results([published]) if published is not None and some else ([], [])
    if not results and not beside:
        raise UserError("There are no published runs yet. Give the folders of runs.")
    run_sets = comparable_run_sets(results, beside)
    methods = sorted({row.method for run_set in run_sets for row in run_set.rows})
    if baseline not in (*methods, BASELINE):
        raise unknown_name("method among these runs", baseline, methods)
    intervals, missing = _intervals(run_sets, baseline, samples, progress) if samples else ([()] * len(run_sets), {})
    tables = []
    for run_set, of_set in zip(run_sets, intervals, strict=True):
        different = {row.label: [group for group in run_set.groups if row.differs(group)] for row in of_set}
        # The marks are about AP; other metrics stay without.
        marks = different if metric == "AP" else {}
        table = run_set_table(run_set, run_sets, metric=metric, different=marks, standards=standards)
        if any(marks.values()):
            note = f"* differs from {baseline} by more than another set of validation images would explain (95 %)."
            table = replace(table, notes=(*table.notes, note))
        if run_set.name in missing:
            table = replace(table, notes=(*table.notes, missing[run_set.name]))
        tables.append(table)
    numbers = (1, 2, 3, 4, 5) if variants else (1, 2, 3)
    paper = [paper_table(number, run_sets, variants, standards) for number in numbers]
    return Report(
        run_sets=tuple(run_sets),
        tables=tuple(tables),
        images=tuple(intervals_table(s, r, baseline) for s, r in zip(run_sets, intervals, strict=True) if r),
        splits=tuple(over_splits(run_sets, metric=metric)),
        paper=tuple(found for found in paper if found is not None),
        results=tidy_table(run_sets, standards, intervals),
        rejected=(*rejected, *damaged),
        metric=metric,
        standards=standards,
        intervals=tuple(intervals),
    )


def _intervals(
    run_sets: Sequence[RunSet], baseline: str, samples: int, progress: Progress
) -> tuple[list[tuple[IntervalRow, ...]], dict[str, str]]:
    """The spread over images of each set, and notes, by the name of a set, on what is missing in it.

    Raises:
        UserError: no set has what is needed.
    """
    found: list[tuple[IntervalRow, ...]] = []
    notes: dict[str, str] = {}
    errors: list[str] = []
    for run_set in run_sets:
        reason = NO_DETECTIONS
        try:
            rows = image_intervals(run_set, baseline=baseline, samples=samples, progress=progress)
        except UserError as error:
            rows, reason = (), str(error)
            errors.append(reason)
        if not rows:
            notes[run_set.name] = f"No spread over images: {reason}"
        elif not any(row.differences for row in rows) and not _is_baseline(run_set, rows, baseline):
            notes[run_set.name] = f"No row of {baseline}, with its default options, to compare with over images."
        found.append(rows)
    if errors and not any(found):
        raise UserError(errors[0])
    return found, notes


def _is_baseline(run_set: RunSet, rows: Sequence[IntervalRow], baseline: str) -> bool:
    """Whether the only row of a table is what others would be compared with."""
    found = [row.label for row in run_set.rows if row.method == baseline and not row.options]
    return len(rows) == 1 and rows[0].label in found


def write_report(report: Report, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write `index.html`, `report.md`, `tables.tex`, `results.csv`, `results.json` and figures (PNG, SVG, PDF).

    Figures of an earlier report that this one has no more are removed.

    Returns:
        the files, each written atomically.

    Raises:
        UserError: one of the files exists with other content and `overwrite` is not given; nothing is written then.
    """
    of_sets, of_several = report.pictures
    pictures = [*(each for of_set in of_sets for each in of_set), *of_several]
    tables = (*report.tables, *report.splits, *report.images, *report.paper)
    content = {
        "report.md": _page(report, {f"{each.name}.png": each.title for each in pictures}).encode(),
        "tables.tex": "\n".join(latex(table) for table in tables).encode(),
        "results.csv": comma_separated(report.results).encode(),
        "results.json": report.numbers_as_json().encode(),
        "index.html": html_page(
            report.run_sets,
            report.tables,
            report.metric,
            report.pictures,
            report.not_drawn,
            (*report.splits, *report.images, *report.paper),
            report.left_out,
            out,
            report.standards,
        ).encode(),
        **{f"{each.name}.{kind}": data for each in pictures for kind, data in render(each.figure, each.title).items()},
    }
    files = {out / name: data for name, data in content.items()}
    changed = {path: data for path, data in files.items() if not path.exists() or path.read_bytes() != data}
    existing = [str(path) for path in changed if path.exists()]
    if existing and not overwrite:
        raise UserError(f"{', '.join(existing)}: exists with other content. Give --overwrite, or another --out.")
    no_more = _figures_shown(out / "report.md") - files.keys()
    for path, data in changed.items():
        write_bytes(path, data)
    for figure in no_more:
        figure.unlink(missing_ok=True)
    return list(files)


def _figures_shown(page: Path) -> set[Path]:
    """The files of the figures that an earlier report shows, each with its title below, as `_page` writes them."""
    text = page.read_text(errors="replace") if page.exists() else ""
    found = re.findall(r"^!\[(.*)\]\(([^/()]+)\.png\)\n\n\1$", text, flags=re.MULTILINE)
    return {page.with_name(f"{name}.{kind}") for _, name in found for kind in KINDS}


def _page(report: Report, plots: Mapping[str, str]) -> str:
    parts = ["# Leaderboard\n", *(markdown(table) for table in report.tables)]
    parts += [markdown(table) for table in (*report.splits, *report.images)]
    if plots:
        pictures = [f"![{markdown_text(title)}]({name})\n\n{markdown_text(title)}\n" for name, title in plots.items()]
        parts += ["## Plots\n", *([f"{report.not_drawn}\n"] if report.not_drawn else []), *pictures]
    parts += [markdown(table) for table in report.paper]
    parts.append(_provenance(report.run_sets))
    if report.left_out:
        lines = [f"- {markdown_text(entry.reason)}" for entry in report.left_out]
        parts.append("\n".join(["## Left out", "", *lines]) + "\n")
    return "\n".join(parts)


def _provenance(run_sets: Sequence[RunSet]) -> str:
    lines = [
        "## Runs",
        "",
        "| Task | Row | Seed | Version | Package | Folder |",
        "| :-- | :-- | --: | --: | :-- | :-- |",
    ]
    for run_set in run_sets:
        for row in run_set.rows:
            for run in row.runs:
                seed = run.result.key.train_seed
                shown = "unknown" if seed is None else seed
                version = "not recorded" if row.version is None else row.version
                package = run.result.package_version
                cells = (run_set.task, row.label, shown, version, package, run.path.parent)
                lines.append(f"| {' | '.join(markdown_text(str(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"
