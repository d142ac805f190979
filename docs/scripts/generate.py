"""Writes the tables that the pages take from the code and from `results/`.

    python docs/scripts/generate.py

A page marks them: `<!-- generated: options rfs -->` ... `<!-- end -->`. What lies between is replaced. It is part of
the page, so that a code host shows it too. `tests/docs/test_generated.py` fails where a page is out of date. Neither
torch nor mkdocs is needed.
"""

import ast
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import evidence
import words
from kinds import option_kinds
from logged import logged_names

from cissod_bench import api
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.leaderboard.comparable import Row, Run, RunSet
from cissod_bench.leaderboard.paper import TABLES, PaperRow, PaperTable
from cissod_bench.leaderboard.report import Report
from cissod_bench.leaderboard.setting import departures
from cissod_bench.leaderboard.writers import markdown, markdown_text
from cissod_bench.methods.gbs.ablations import ABLATIONS
from cissod_bench.methods.gbs.presets import PRESETS
from cissod_bench.methods.options import describe_options
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.run_key import RunKey
from cissod_bench.tasks.registry import TASKS, get_task
from cissod_bench.training.recipes.detectors import DETECTORS, get_detector
from cissod_bench.training.recipes.schedules import SCHEDULES
from cissod_bench.training.spec import RunSpec, per_process, reference_images

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
BLOCK = re.compile(r"(<!-- generated: (?P<what>[a-z-]+) ?(?P<about>[a-z0-9-]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def updated(text: str) -> str:
    """The text of a page with all its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{_table(found['what'], found['about'])}\n\n{found[4]}", text)


def _table(what: str, about: str) -> str:
    return MAKERS[what](*([about] if about else [])).strip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def code(text: object) -> str:
    """A text as code in a cell."""
    return f"`{text}`" if str(text) else ""


# Methods ------------------------------------------------------------------------------------------------------------


def methods() -> str:
    """The methods of the registry, with their pages."""
    return table(
        ["method", "family", "what it is", "row of the paper"],
        [
            [f"[`{name}`](methods/{name}.md)", method.family, method.title, method.paper_name or "–"]
            for name, method in METHODS.items()
        ],
    )


def about(name: str) -> str:
    """A method in two lines: title; family, version, row of the paper, file."""
    method = METHODS[name]
    source = f"{method.module.replace('.', '/')}.py"
    row = f' · row "{method.paper_name}" of the paper' if method.paper_name else " · not in the paper"
    return f"{method.title}.\n\nFamily {method.family} · version {method.version}{row} · [{source}](../../{source})"


def options(name: str) -> str:
    """A method's options with values, defaults and sources."""
    found = describe_options(METHODS[name])
    if not found:
        return "None."
    kinds = option_kinds(METHODS[name])
    rows = [[code(each.name), kinds[each.name], _default(each.default), each.about] for each in found]
    return table(["option", "value", "default", "what it does, and where the default is from"], rows)


def _default(written: str) -> str:
    """A default as `-o NAME=VALUE` takes it; a dash for None, which each option explains."""
    try:
        value = ast.literal_eval(written)
    except ValueError:
        value = written  # an expression, such as 12000 / 180000
    return "–" if value is None else code(_text(value))


def logged(name: str) -> str:
    """What a method logs beyond what every run does."""
    rows = [[code(each), words.LOGGED[each]] for each in logged_names(METHODS[name].module)]
    common = "[what every run logs](../training.md#progress-and-logs)"
    return f"Beyond {common}:\n\n{table(['name', 'what it is'], rows)}" if rows else f"Nothing beyond {common}."


def citation(name: str) -> str:
    """The paper of a method."""
    return f"{METHODS[name].citation}."


def ablations() -> str:
    """The rows of Tables 4 and 5, with the options that make them."""
    printed = {(part.number, row.label): row.ap for part in TABLES for row in part.rows}
    rows = []
    for name, ablation in ABLATIONS.items():
        given = " ".join(f"{key}={_text(value)}" for key, value in ablation.options.items())
        made_of = f"{ablation.method} {given}".strip()
        ap = printed[ablation.table, ablation.title]
        rows.append([str(ablation.table), ablation.title, code(name), code(made_of), evidence.slashed(ap.values())])
    return table(["table", "row", "`--ablation`", "method and options", "paper: AP all / maj / min"], rows)


def presets() -> str:
    """The values of `--preset release` beside the defaults."""
    release = PRESETS["release"]
    defaults = {each.name: _default(each.default) for each in describe_options(METHODS["gbs"])}
    changed = [name for name in defaults if any(name in given for given in release.values())]
    rows = [[code(name), defaults[name], *(_value(given.get(name)) for given in release.values())] for name in changed]
    return table(["option", "default", *(f"release, {data}" for data in release)], rows)


def _value(value: object) -> str:
    return "" if value is None else code(_text(value))


def _text(value: object) -> str:
    """A value as `-o NAME=VALUE` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# Results ------------------------------------------------------------------------------------------------------------


@cache
def _published() -> Report:
    return api.report(published=True)


@cache
def _methods_alone() -> Report:
    return evidence.methods_alone(_published())


def leaderboard() -> str:
    """The tables of all published runs of methods with their defaults, a level lower than in a report."""
    report = _methods_alone()
    tables = [markdown(each).replace("## ", "### ", 1) for each in (*report.tables, *report.splits, *report.paper)]
    return "\n".join(tables).replace(", published", "")


def scores(task: str) -> str:
    """The leaderboard of a task's published runs of most methods."""
    return evidence.scores(_methods_alone(), task)


def short_scores(task: str) -> str:
    """The same of the runs with the short schedule."""
    return evidence.scores(_methods_alone(), task, "short")


def best_known(task: str) -> str:
    """AP of those runs by group, of the methods with several seeds."""
    _, run_set = evidence.run_set_of(_methods_alone(), task)
    rows = [[code(row.method), *_measured(run_set, row)] for row in run_set.rows if len(row.seeds) > 1]
    return table(["method", f"AP {' / '.join(run_set.groups)}", "seeds"], rows)


def pseudo_labels(task: str) -> str:
    """Quality of pseudo labels, and what gbs steers, in the last part of those runs."""
    names = list(evidence.groups_of(evidence.run_set_of(_methods_alone(), task)[1]))
    heads = [f"{what}, {name}" for what in ("precision / recall", "weight", "threshold") for name in names]
    return table(["method", *heads], evidence.pseudo_labels(_methods_alone(), task))


def parts(task: str) -> str:
    """Table 4 on a task."""
    return _ablations_on(task, 4, against="none")


def thresholds(task: str) -> str:
    """Table 5 on a task."""
    return _ablations_on(task, 5, against="0.9")


def _ablations_on(task: str, number: int, against: str) -> str:
    (part,) = (part for part in TABLES if part.number == number)
    seeds, rows = evidence.ablations(_published(), task, part, against)
    heads = [
        "row",
        "paper, COCO split 1: AP all / maj / min",
        f"`{task}`: AP all / maj / min",
        f"min, against {against}",
        "min by seed",
    ]
    return f"{table(heads, rows)}\n\nTraining seeds here: {', '.join(map(str, seeds))}."


def ablation_pseudo_labels(task: str) -> str:
    """The pseudo labels of the rows of Tables 4 and 5 on a task."""
    report = _published()
    heads = [f"precision / recall, {name}" for name in evidence.groups_of(evidence.run_set_of(report, task)[1])]
    parts = [part for part in TABLES if part.number in (4, 5)]
    return table(["row", "AP min", *heads], evidence.ablation_pseudo_labels(report, task, parts))


def _rows_of(name: str) -> Iterator[tuple[RunSet, Row]]:
    for run_set in _methods_alone().run_sets:
        for row in run_set.rows:
            if row.method == name:
                yield run_set, row


def results(name: str) -> str:
    """A method's published results, and the paper's numbers for it."""
    lines = []
    for part, row in _rows_of_the_paper(name):
        here = [
            _measured(run_set, each)
            for run_set, each in _rows_of(name)
            if run_set.task == part.task and not departures(run_set) and not each.options
        ]
        measured = here[0] if here else ["not run yet", ""]
        where = f"`{part.task}` (Table {part.number})"
        lines.append([where, " / ".join(row.ap), evidence.slashed(row.ap.values()), *measured])
    for run_set, row in _rows_of(name):
        if run_set.task in TASKS and TASKS[run_set.task].dataset != "shapes" and not departures(run_set):
            continue
        given = "".join(f", {key}={value}" for key, value in row.options.items())
        where = markdown_text(f"{run_set.title}{given}")
        lines.append([where, " / ".join(run_set.groups), "–", *_measured(run_set, row)])
    if not lines:
        return "Neither in the paper's tables nor among the published runs yet."
    return table(["task", "AP of", "paper", "published here", "seeds"], lines)


def _rows_of_the_paper(name: str) -> list[tuple[PaperTable, PaperRow]]:
    """The rows of Tables 1 to 3, and of Table 4, that are the method by itself."""
    only = METHODS[name].paper_name
    return [
        (part, row)
        for part in TABLES
        for row in part.rows
        if (part.number <= 3 and row.method == name) or (part.number == 4 and row.label == only)
    ]


def _measured(run_set: RunSet, row: Row) -> list[str]:
    """AP of the groups, and the number of seeds."""
    cells = []
    for group in run_set.groups:
        found = row.spread(group, "AP")
        cells.append("–" if found is None else evidence.percent(found))
    return [" / ".join(cells), str(len(row.runs))]


def commands(name: str) -> str:
    """The commands of a method's published runs, and of the paper's rows."""
    blocks = []
    for run_set, row in _rows_of(name):
        if not (ROOT / _task_file(run_set.task)).is_file() and run_set.task not in TASKS:
            blocks.append(f"{markdown_text(run_set.title)}: the task is not in this repository.")
            continue
        lines = [_split_command(row.runs[0].result.key), *(_run_command(run) for run in row.runs)]
        file = _task_file(run_set.task)
        files = "" if run_set.task in TASKS else f", with the data of [`{file}`](../../{file})"
        blocks.append(f"{markdown_text(run_set.title)}{files}:\n\n{_block(lines)}")
    rows = _rows_of_the_paper(name)
    if rows:
        lines = [_of_the_paper(part.task, name) for part, _ in rows]
        blocks.append(
            "The paper's setting on eight GPUs, with the [splits](../splits.md) of the tasks under `data/splits`; "
            f"[one GPU](../training.md#one-gpu-in-place-of-eight) takes eight times as long:\n\n{_block(lines)}"
        )
    return "\n\n".join(blocks) or "No run of it is published yet."


def _block(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


def _of_the_paper(task: str, method: str) -> str:
    return f"cissod-bench run --task {task} --method {method} --backbone {words.BACKBONE} --gpus 8"


def _split_command(key: RunKey) -> str:
    arguments = ["make-splits", "--task", _task_file(key.task), "--out", f"splits/{key.task}"]
    return shlex.join(["cissod-bench", *arguments, *(["--seed", str(key.split_seed)] if key.split_seed else [])])


def _run_command(run: Run) -> str:
    return shlex.join(["cissod-bench", "run", *run_arguments(spec_of(run))])


def spec_of(run: Run) -> RunSpec:
    """The spec of a published run. Files are named as in `examples/`, since its key has their digests alone."""
    key = run.result.key
    task = get_task(key.task if key.task in TASKS else str(ROOT / _task_file(key.task)))
    file = key.detector
    if key.detector_digest:
        example = ROOT / "examples" / "detectors" / f"{key.detector}.py"
        file = str((example if example.is_file() else run.path.with_name("detector.py")).relative_to(ROOT))
    detector = get_detector(str(ROOT / file) if key.detector_digest else file)
    assert key.batch is not None
    costs = run.result.costs
    threads = re.search(r", (\d+) threads?$", costs.device) if costs else None  # decides a CPU's last digits
    own_weights = key.backbone is None or detector.weights is not None
    spec = RunSpec(
        task=_task_file(key.task),
        split=Path("splits", key.task),
        method=key.method,
        options=key.method_options,
        schedule=key.schedule,
        detector=None if key.detector == task.detector else file,
        backbone=None if own_weights else Path(words.BACKBONES.get(str(key.backbone), "weights.pth")),
        seed=key.train_seed or 0,
        precision=key.precision or "tf32",
        compile=key.compile,
        overrides=key.overrides,
        accumulate=key.accumulate,
        threads=int(threads[1]) if threads else None,
    )
    batch = tuple(images // key.accumulate for images in key.batch)
    changes: dict[str, object] = {}
    if batch != per_process(spec, detector):
        changes["batch"] = f"{batch[0]}+{batch[1]}"
    if key.iterations != SCHEDULES[key.schedule].length(task, sum(key.batch) / reference_images(detector)):
        changes["iterations"] = key.iterations
    return RunSpec(**{name: getattr(spec, name) for name in RunSpec.__struct_fields__} | changes)


def _task_file(task: str) -> str:
    return task if task in TASKS else f"examples/{task}.toml"


# Everything else ----------------------------------------------------------------------------------------------------


def tasks() -> str:
    """The built-in tasks."""
    rows = [
        [code(name), task.title, f"{task.iterations:,}", code(task.detector), f"{task.rfs_threshold:g}"]
        for name, task in TASKS.items()
    ]
    return table(["task", "what it is", "iterations", "detector", "t of RFS"], rows)


def schedules() -> str:
    """The schedules."""
    return table(["schedule", "length"], [[code(name), each.title] for name, each in SCHEDULES.items()])


def detectors() -> str:
    """The detector presets."""
    rows = [
        [code(name), each.title, "{} + {}".format(*each.per_gpu), str(each.reference_gpus)]
        for name, each in DETECTORS.items()
    ]
    return table(["preset", "what it is", "images in a batch", "GPUs its rate is meant for"], rows)


def scalars() -> str:
    """What every run logs."""
    rows = [[", ".join(code(each) for each in name.split(", ")), text] for name, text in words.SCALARS.items()]
    return table(["name in `scalars.jsonl`", "what it is"], rows)


def versions() -> str:
    """The versions of tasks and methods."""
    rows = [["task", code(name), str(task.version)] for name, task in TASKS.items()]
    rows += [["method", code(name), str(method.version)] for name, method in METHODS.items()]
    return table(["", "name", "version"], rows)


MAKERS: dict[str, Callable[..., str]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        methods, about, options, logged, citation, ablations, presets, leaderboard, scores, short_scores, best_known,
        pseudo_labels, parts, thresholds, ablation_pseudo_labels, results, commands, tasks, schedules, detectors,
        scalars, versions,
    )
}  # fmt: skip


def pages() -> list[Path]:
    """The pages, in order of their paths, and the README."""
    return [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := updated(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: updated")
