"""`cissod-bench list`: methods, tasks, schedules, detectors and ablations."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, Any

import typer

from cissod_bench.cli.console import print_json, say
from cissod_bench.cli.layout.columns import arrange, narrowest_width, natural_width, terminal_width
from cissod_bench.cli.layout.panels import PanelApp
from cissod_bench.cli.options import Json

app = PanelApp(help="List methods, tasks, schedules, detectors or ablations.")


@app.command("methods")
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method or a method file, to show its options.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or with NAME the options of one."""
    from cissod_bench.methods import user
    from cissod_bench.methods.registry import METHODS

    if name is not None:
        show_method(name, as_json)
        return
    rows = [
        {
            "name": method.name,
            "version": method.version,
            "family": method.family,
            "title": method.title,
            "citation": method.citation,
        }
        for method in METHODS.values()
    ]
    for name, entry in user.installed().items():  # only named, since importing one takes seconds
        title = f"{entry.value}, of the installed package {user.package_of(entry)}"
        if name in METHODS:
            title = f"NOT USED, a built-in method has this name: {title}"
        rows.append({"name": name, "version": None, "family": "installed", "title": title, "citation": ""})
    show(rows, ("name", "version", "family", "title"), as_json)


def show_method(name: str, as_json: bool) -> None:
    """Print a method and its options with types, defaults and their sources."""
    from cissod_bench.methods import describe

    method = describe(name)
    if as_json:
        print_json(method)
        return
    width = min(100, terminal_width() or 100)
    for text in (f"{method['name']}, version {method['version']}: {method['title']}", method["citation"], ""):
        say(textwrap.fill(text, width))
    for option in method["options"]:
        say(f"-o {option['name']}={option['default']}    {option['type']}")
        say(textwrap.fill(option["about"], width, initial_indent="    ", subsequent_indent="    "))


@app.command("tasks")
def tasks(as_json: Json = False) -> None:
    """List the tasks for `make-splits --task` and `run --task`."""
    from cissod_bench.tasks.registry import TASKS

    rows = [
        {
            "name": task.name,
            "version": task.version,
            "iterations": task.iterations,
            "detector": task.detector,
            "title": task.title,
        }
        for task in TASKS.values()
    ]
    show(rows, ("name", "version", "iterations", "detector", "title"), as_json)


@app.command("ablations")
def ablations(as_json: Json = False) -> None:
    """List the rows of the paper's Tables 4 and 5 (`run --ablation`)."""
    from cissod_bench.methods.gbs.ablations import ABLATIONS

    rows = [
        {
            "name": ablation.name,
            "table": ablation.table,
            "title": ablation.title,
            "method": ablation.method,
            "options": " ".join(f"{name}={value}" for name, value in ablation.options.items()),
        }
        for ablation in ABLATIONS.values()
    ]
    show(rows, ("name", "table", "title", "method", "options"), as_json)


@app.command("schedules")
def schedules(as_json: Json = False) -> None:
    """List the schedules for `run --schedule`."""
    from cissod_bench.training.recipes.schedules import SCHEDULES

    rows = [{"name": schedule.name, "title": schedule.title} for schedule in SCHEDULES.values()]
    show(rows, ("name", "title"), as_json)


@app.command("detectors")
def detectors(as_json: Json = False) -> None:
    """List the detector presets for `run --detector`."""
    from cissod_bench.training.recipes.detectors import DETECTORS

    rows = [{"name": detector.name, "title": detector.title} for detector in DETECTORS.values()]
    show(rows, ("name", "title"), as_json)


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """Print some columns of the rows as a table, or everything as JSON."""
    if as_json:
        print_json(rows)
        return
    lines = [list(columns), *(["" if row[column] is None else str(row[column]) for column in columns] for row in rows)]
    columns_of = list(zip(*lines, strict=True))
    natural = [natural_width("", cells) for cells in columns_of]
    narrowest = [narrowest_width("", cells, folds=True) for cells in columns_of]
    for place, block in enumerate(arrange(natural, narrowest, 1, terminal_width())):
        if place:
            say("")
        for line in lines:
            folded = [textwrap.wrap(line[index], width, break_on_hyphens=False) for index, width in block.items()]
            for parts in zip_longest(*folded, fillvalue=""):
                cells = (part.ljust(width) for part, width in zip(parts, block.values(), strict=True))
                say("  ".join(cells).rstrip())
