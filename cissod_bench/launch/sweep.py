"""Sweeps: the folders and cost of many runs, and running them one by one or as cluster jobs."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.grid import Values, spec_of, varied
from cissod_bench.launch.side_by_side import run_all, slots
from cissod_bench.launch.slurm import check_options
from cissod_bench.launch.status import (
    LEFT,
    Member,
    SweepRun,
    state_of,
    submit_member,
    with_state,
)
from cissod_bench.training.process.quiet import quiet_imports
from cissod_bench.training.spec import RunSpec, default_out, run_key, safe_text

_NAMING = ("task", "method", "ablation", "preset", "option", "set", "settings", "schedule", "iterations",
           "detector", "seed")  # fmt: skip
"""Options that `default_out` puts into the name of a run folder."""


def grid_members(runs: Sequence[Values], root: Path) -> list[Member]:
    """The runs of a grid with their folders below `root`; names include every option that the grid varies.

    Raises:
        UserError: an option of the wrong type, an unknown name, or two runs with the same folder.
    """
    apart = {name: _short([values.get(name) for values in runs]) for name in varied(runs) if name not in _NAMING}
    named = []
    for values in runs:
        spec = spec_of(values)
        shown = {name: values[name] for name in apart if values.get(name) is not None}
        suffix = "".join(f"-{name}={safe_text(apart[name](value))}" for name, value in shown.items())
        named.append((f"{default_out(spec)}{suffix}", spec))
    return _members(named, root)


def spec_members(specs: Sequence[RunSpec], root: Path) -> list[Member]:
    """The same for specs; a spec with `out` keeps its folder.

    Raises:
        UserError: an unknown name, or two runs with the same folder.
    """
    return _members([(str(default_out(spec) if spec.out is None else spec.out), spec) for spec in specs], root)


def _members(named: Sequence[tuple[str, RunSpec]], root: Path) -> list[Member]:
    found: dict[str, Member] = {}
    for name, spec in named:
        if name in found:
            raise UserError(
                f"Two runs would share the folder {root / name}; one of them is `run {' '.join(run_arguments(spec))}`."
            )
        found[name] = Member(name, root, msgspec.structs.replace(spec, out=root / name))
    return list(found.values())


def _short(values: Sequence[Any]) -> Callable[[Any], Any]:
    """How to shorten the values of an option, of which texts may be paths: as far as they stay apart."""
    texts = {str(value) for value in values if isinstance(value, str | Path)}
    longest = max((len(Path(text).parts) for text in texts), default=0)
    shortened: list[Callable[[str], str]] = [
        _without_ending,
        *(lambda text, parts=parts: "/".join(Path(text).parts[-parts:]) for parts in range(1, longest + 1)),
    ]
    chosen = next((each for each in shortened if len({safe_text(each(text)) for text in texts}) == len(texts)), str)
    return lambda value: chosen(str(value)) if isinstance(value, str | Path) else value


def _without_ending(text: str) -> str:
    """The name of a file without an ending such as .pth; that of a folder such as fraction-0.05 is whole."""
    return re.sub(r"\.[A-Za-z]\w*$", "", Path(text).name)


def make_members(
    members: Sequence[Member],
    *,
    start: bool = True,
    cluster: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    gpus_per_run: int | None = None,
    starts: Callable[[int, Member], None] = lambda position, member: None,
    fails: Callable[[str], None] = lambda reason: None,
) -> list[SweepRun]:
    """Run what is unfinished, unless a folder holds another run; return the states of all runs afterwards.

    Args:
        members: the runs.
        start: False to only look up the states.
        cluster: options of the cluster to submit to; None to run here.
        jobs, gpus_per_run: how many runs at a time, see `slots`.
        starts, fails: see `run_all`; positions include finished runs.

    Raises:
        UserError: a setting does not exist, or what the cluster needs is not given.
        Stopped: the sweep received a signal.
    """
    found = [with_state(member) for member in members]
    if start:
        left = [run for run in found if run.state in LEFT]
        check_settings(left)
        if all(run.state != "another run" for run in found):
            if cluster is not None:
                check_options(cluster)
                submit_all(left, cluster)
            else:
                done = len(members) - len(left)
                here = slots(jobs, gpus_per_run)
                run_all(left, lambda position, member: starts(done + position, member), fails, here)
            found = [with_state(member) for member in members]
    return found


def refuse_other_runs(states: Sequence[str]) -> None:
    """Refuse a sweep with folders that hold other runs.

    Raises:
        UserError: at least one state is "another run".
    """
    others = states.count("another run")
    if others:
        raise UserError(f"{others} of {len(states)} run folders hold another run, see the table. Give another --out.")


def check_settings(left: Sequence[Member]) -> None:
    """Preflight check of runs with --set before the first one starts, once for runs that differ in the seed alone.

    Raises:
        UserError: a setting does not exist, or a run with settings is not possible.
    """
    kinds: dict[str, Member] = {}
    for member in left:
        if member.spec.overrides:
            kind = msgspec.structs.replace(member.spec, seed=0, split=None, out=None)
            kinds.setdefault(repr(kind), member)
    for member in kinds.values():
        plan_of(member.spec)


def plan_of(spec: RunSpec) -> dict[str, Any]:
    """The plan of a run (`training/run_plan.py`).

    Raises:
        UserError: the run is not possible.
    """
    with quiet_imports():
        from cissod_bench.training.job import resolve_job
        from cissod_bench.training.preflight import check_parts
        from cissod_bench.training.run_plan import plan

        job = resolve_job(spec)
        check_parts(job)
        return plan(job)


def plan_members(members: Sequence[Member]) -> list[dict[str, Any]]:
    """State and cost of each run: `hours`, and the remaining `hours_left` of a GPU or of this machine."""
    rows = []
    for member in members:
        state, plan, problem = state_of(member), {}, ""
        try:
            plan = plan_of(member.spec)
        except UserError as error:
            problem = str(error)
        each = plan.get("estimated_hours")
        left = 0.0 if state.state == "done" or each is None else each * max(1, plan["gpus"])
        row: dict[str, Any] = {
            "run": member.name,
            "state": "cannot run" if problem else state.state,
            "reason": problem or state.reason,
        }
        row |= {name: plan.get(name) for name in ("iterations", "learning_rate")}
        row |= {"images": sum(plan["batch"].values()) if plan else None, "hours": each}
        rows.append(row | {"hours_left": None if each is None else left})
    return rows


def submit_all(waiting: Sequence[Member], options: Mapping[str, Any]) -> None:
    """Submit runs as jobs and note the job numbers.

    Raises:
        UserError: a run is not possible, or the cluster refuses it.
    """
    for member in waiting:  # check all of them before the first job is submitted
        run_key(member.spec)
    for member in waiting:
        gpus = 0 if member.spec.device == "cpu" else member.spec.gpus
        submit_member(member, {**options, "nodes": member.spec.nodes, "gpus": gpus})
