"""The grid of a sweep.

A sweep file::

    out = "runs"                              # folder for all run folders

    [run]                                     # options of `run` that all runs share
    task = "shapes"
    schedule = "short"

    [[grid]]                                  # every combination of the values; several tables add up
    method = ["soft-teacher", "gbs"]
    seed = [0, 1, 2]

    [[grid]]
    ablation = ["gbr", "gbt"]
    option = [["eta=0.999"], ["eta=0.9995"]]  # lists, because `run` takes this option repeatedly
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.toml import toml_content
from cissod_bench.training.overrides import parse_overrides
from cissod_bench.training.spec import RunSpec, parse_options

Values = Mapping[str, Any]
_ONE_OF = ("method", "ablation")
"""A run has one of these, so together they form one axis."""
REPEATED = {"option": "options", "set": "overrides", "settings": "overrides", "logger": "loggers"}
"""Repeatable options of `run` -> the field of `RunSpec` that collects them."""
OPTIONS = (
    *REPEATED,
    *(name for name in RunSpec.__struct_fields__ if name not in ("out", *REPEATED.values())),
)
"""Options that a sweep may set."""


@dataclass(frozen=True)
class Grid:
    """The runs of a sweep.

    Attributes:
        out: folder for all run folders; None if the sweep does not name one.
        runs: options of each run.
    """

    out: Path | None
    runs: tuple[Values, ...]


def read_grid(path: Path, shared: Values) -> Grid:
    """The runs of a sweep file.

    Args:
        path: TOML file, see the module docstring.
        shared: options from the command line, which override those of the file.

    Raises:
        UserError: the file cannot be read, is not TOML or has an unknown entry.
    """
    content = toml_content(path, "sweep file")
    for name in content:
        if name not in ("out", "run", "grid"):
            raise UserError(f"{path}: {unknown_name('entry', name, ('out', 'run', 'grid'))}")
    base, tables = content.get("run", {}), content.get("grid", [{}])
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(base, dict) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise UserError(f"{path}: write [run] as a table and [[grid]] as tables of lists.")
    if not isinstance(content.get("out", ""), str):
        raise UserError(f"{path}: out must be a text, not {content['out']!r}.")
    runs = expand(str(path), {**base, **shared}, tables)
    return Grid(Path(content["out"]) if "out" in content else None, runs)


def expand(source: str, shared: Values, tables: Sequence[Mapping[str, Any]]) -> tuple[Values, ...]:
    """Combine the values of each table; every run once, in the order of the tables.

    Args:
        source: origin of the tables, for messages.
        shared: options of all runs. Tables override them, or extend them where `run` repeats an option.
        tables: name -> a value or a list of values.

    Raises:
        UserError: a name that `run` does not have, or an empty list.
    """
    runs: list[Values] = []
    for table in tables:
        for name, values in (*shared.items(), *table.items()):
            if name.replace("-", "_") not in OPTIONS:
                raise UserError(f"{source}: {unknown_name('option of run', name, OPTIONS)}")
            if values == []:
                raise UserError(f"{source}: {name} has an empty list of values.")
        axes: dict[str, list[tuple[str, Any]]] = {}
        for name, values in table.items():
            key = "/".join(_ONE_OF) if name in _ONE_OF else name
            axes.setdefault(key, []).extend((name, value) for value in _listed(values))
        for chosen in itertools.product(*axes.values()):
            named = any(name in _ONE_OF for name, _ in chosen)
            run = {name.replace("-", "_"): value for name, value in shared.items() if not (named and name in _ONE_OF)}
            for name, value in chosen:
                name = name.replace("-", "_")
                both = name in REPEATED and name in run
                run[name] = [*_listed(run[name]), *_listed(value)] if both else value
            if run not in runs:
                runs.append(run)
    return tuple(runs)


def spec_of(run: Values) -> RunSpec:
    """The spec for the options of a run.

    Raises:
        UserError: a value of the wrong type or out of range, or no task.
    """
    fields: dict[str, Any] = {name: value for name, value in run.items() if name not in REPEATED}
    given = {name: [str(value) for value in _listed(run[name])] for name in REPEATED if name in run}
    if "option" in given:
        fields["options"] = parse_options(given["option"])
    if "set" in given or "settings" in given:
        fields["overrides"] = parse_overrides([*given.get("settings", ()), *given.get("set", ())])
    if "logger" in given:
        fields["loggers"] = tuple(given["logger"])
    if "task" not in fields:
        said = " ".join(f"--{name} {value}" for name, value in run.items())
        raise UserError(f"{said or 'sweep'}: the task is missing. Give --task, or `task` in the file.")
    return RunSpec(**fields)


def varied(runs: Sequence[Values]) -> tuple[str, ...]:
    """Names of the options in which the runs differ, in order of appearance."""
    names = dict.fromkeys(name for run in runs for name in run)
    return tuple(name for name in names if any(run.get(name) != runs[0].get(name) for run in runs))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
