"""The grid of a sweep: which runs there are, as options of `run`.

A sweep file::

    out = "runs"                              # folder of all run folders

    [run]                                     # options of `run` that all runs share
    task = "shapes"
    schedule = "short"

    [[grid]]                                  # every combination of the values; tables are added up
    method = ["soft-teacher", "gbs"]
    seed = [0, 1, 2]

    [[grid]]
    ablation = ["gbr", "gbt"]
    option = [["eta=0.999"], ["eta=0.9995"]]  # a list where `run` takes an option more than once
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError, unknown_name

Values = Mapping[str, Any]
_ONE_OF = ("method", "ablation")
"""What is trained: named by one of these, so that both together are one axis."""


@dataclass(frozen=True)
class Known:
    """An option of `run`, as a sweep may set it.

    Attributes:
        flag: what it is called on the command line.
        switch: whether it is given without a value.
        repeated: whether it may be given more than once.
    """

    flag: str
    switch: bool
    repeated: bool


@dataclass(frozen=True)
class Grid:
    """Runs to be made.

    Attributes:
        out: folder of their folders, None to leave that to the command line.
        runs: options of each.
    """

    out: Path | None
    runs: tuple[Values, ...]


def read_grid(path: Path, known: Mapping[str, Known], shared: Values) -> Grid:
    """The runs of a sweep file.

    Args:
        path: TOML file, see the head of this module.
        known: name -> option of `run`.
        shared: options from the command line, which go before those of the file.

    Raises:
        UserError: no such file, not TOML, or an entry that means nothing.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({error}).") from None
    for name in content:
        if name not in ("out", "run", "grid"):
            raise UserError(f"{path}: {unknown_name('entry', name, ('out', 'run', 'grid'))}")
    base, tables = content.get("run", {}), content.get("grid", [{}])
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(base, dict) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise UserError(f"{path}: write [run] as a table and [[grid]] as tables of lists.")
    runs = expand(str(path), {**base, **shared}, tables, known)
    return Grid(Path(content["out"]) if "out" in content else None, runs)


def expand(
    source: str, shared: Values, tables: Sequence[Mapping[str, Any]], known: Mapping[str, Known]
) -> tuple[Values, ...]:
    """Every combination of the values of each table, each run once, in the order of the tables.

    Args:
        source: where they come from, for messages.
        shared: options of all runs; those of the tables go before them, and beside them where `run` repeats an option.
        tables: name -> a value or a list of values.
        known: name -> option of `run`.

    Raises:
        UserError: a name that `run` does not have, or an empty list.
    """
    runs: list[Values] = []
    for table in tables:
        for name, values in (*shared.items(), *table.items()):
            if name.replace("-", "_") not in known:
                raise UserError(f"{source}: {unknown_name('option of run', name, known)}")
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
                both = known[name].repeated and name in run
                run[name] = [*_listed(run[name]), *_listed(value)] if both else value
            if run not in runs:
                runs.append(run)
    return tuple(runs)


def arguments(run: Values, known: Mapping[str, Known]) -> list[str]:
    """A run's options as arguments of the command line."""
    return list(_arguments(run, known))


def _arguments(run: Values, known: Mapping[str, Known]) -> Iterator[str]:
    for name, value in run.items():
        option = known[name]
        if option.switch:
            if value:
                yield option.flag
            continue
        for single in _listed(value) if option.repeated else [value]:
            yield from (option.flag, str(single))


def varied(runs: Sequence[Values]) -> tuple[str, ...]:
    """Names of the options in which the runs differ, in the order in which they come up."""
    names = dict.fromkeys(name for run in runs for name in run)
    return tuple(name for name in names if any(run.get(name) != runs[0].get(name) for run in runs))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
