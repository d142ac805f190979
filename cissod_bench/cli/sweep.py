"""`cissod-bench sweep`: many runs as one declared grid."""

import contextlib
import functools
import io
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from cissod_bench.cli.asked import asked_for
from cissod_bench.cli.options import Json, Slurm, SlurmOptions, cluster_options
from cissod_bench.cli.run import default_folder, run
from cissod_bench.errors import Stopped, UserError

if TYPE_CHECKING:
    from cissod_bench.launch.grid import Grid, Known
    from cissod_bench.launch.status import Member, Standing

# Of the errors in a command line Typer exports this one alone; its base stands in click, from Typer 0.26 on in Typer.
_USAGE_ERROR: Any = typer.BadParameter.__base__

_NOT_OURS = ("out", "as_json", "plan_only", "exported", "node_rank", "rendezvous", "slurm", "slurm_option")
"""Options of `run` that a sweep sets itself, or that mean nothing in one."""
_NAMING = ("task", "method", "ablation", "preset", "option", "schedule", "iterations", "seed")
"""Options that are in the name of a run folder as `run` makes it."""
_LEFT = ("waiting", "failed", "another run")
"""States of runs that have neither been made nor started."""
_PASSED_ON = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}
"""Signals that stop a sweep, and what its run gets instead: one of those that make it leave a checkpoint."""


def sweep(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.toml] [OPTIONS OF RUN]", help="Grid, and options that all runs share."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task; repeatable, as are the next four.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method.")] = None,
    ablation: Annotated[list[str] | None, typer.Option(help="Ablation, beside the methods.")] = None,
    schedule: Annotated[list[str] | None, typer.Option(help="Schedule.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Training seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run folders. Default: the file's, or runs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every run, print plan and cost; run nothing.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Print the table of states; run nothing.")] = False,
    slurm: Slurm = False,
    slurm_option: SlurmOptions = None,
    as_json: Json = False,
) -> None:
    """Make all runs of a grid: methods x tasks x seeds, or any options of `run`.

    The grid is a file (see docs/training.md) or the options below; whatever else `run` knows is given to all runs.
    Runs are made one after the other, each in a process of its own, or as Slurm jobs. The same command again skips
    what is done, goes on with what was interrupted and tries again what failed. Exit code 1 says that a run failed, 2
    that nothing was started: a setting does not exist, or a folder holds another run.
    """
    submitted = cluster_options(slurm, slurm_option)
    grid = read(
        arguments or [], {"task": task, "method": method, "ablation": ablation, "schedule": schedule, "seed": seed}
    )
    found = members(grid, out or grid.out or Path("runs"))
    if dry_run:
        show_plan(found, as_json)
        return
    states = [look(member) for member in found]
    if not status:
        left = [member for member, state in zip(found, states, strict=True) if state.state in _LEFT]
        check_settings(left)
        if all(state.state != "another run" for state in states):
            if submitted is not None:
                submit_all(left, submitted)
            else:
                run_all(left, len(found), quiet=as_json)
            states = [look(member) for member in found]
    show_states(list(zip(found, states, strict=True)), as_json)
    refuse_other_runs([state.state for state in states])
    if any(state.state == "failed" for state in states):
        raise typer.Exit(1)


def read(arguments: Sequence[str], axes: dict[str, list[Any] | None]) -> "Grid":
    """The grid from a file or from options.

    Raises:
        UserError: an option that `run` does not have, a value that it does not take, or both a file and axes of it.
    """
    from cissod_bench.launch.grid import Grid, expand, read_grid

    known = run_options()
    given = {name: values for name, values in axes.items() if values}
    file = Path(arguments[0]) if arguments and not arguments[0].startswith("-") else None
    shared = shared_options(arguments[1:] if file else arguments)
    if file is None:
        return Grid(None, expand("sweep", shared, [given], known))
    if given:
        raise UserError(f"{file}: the file says what is combined; leave --{next(iter(given))} out.")
    return read_grid(file, known, shared)


def run_options() -> "dict[str, Known]":
    """What a sweep may set: name -> option of `run`."""
    from cissod_bench.launch.grid import Known

    return {
        parameter.name: Known(parameter.opts[0], parameter.is_flag, parameter.multiple)
        for parameter in _run_command().params
        if isinstance(parameter, TyperOption) and parameter.name and parameter.name not in _NOT_OURS
    }


def shared_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Options of `run` on the command line, by name, those alone that are given.

    Raises:
        UserError: `run` does not have or not take one of them.
    """
    with usage_errors("sweep"):
        context = _run_command().make_context("run", ["--task", "any", *arguments])
    for name in _given(context, _NOT_OURS):
        raise UserError(f"sweep: {name} is not for all runs.")
    return {name: value for name, value in _given(context, run_options()).items() if name != "task"}


def members(grid: "Grid", root: Path) -> "list[Member]":
    """The runs of a grid with their folders and command lines.

    Raises:
        UserError: a run whose command line is wrong, an unknown name, or two runs with one folder.
    """
    from cissod_bench.launch.grid import arguments, varied
    from cissod_bench.launch.status import Member

    known, apart = run_options(), [name for name in varied(grid.runs) if name not in _NAMING]
    found: dict[str, Member] = {}
    for values in grid.runs:
        command = arguments(values, known)
        with usage_errors(" ".join(command) or "sweep"):
            parsed = _run_command().make_context("run", list(command)).params
        folder = default_folder(Path(), parsed)
        suffix = "".join(f"-{name}={Path(str(parsed[name])).stem}" for name in apart if parsed[name] is not None)
        name = f"{folder}{suffix}"
        if name in found:
            raise UserError(f"Two runs would have the folder {root / name}: {' '.join(command)} is one of them.")
        found[name] = Member(name, root, tuple(command), parsed)
    return list(found.values())


def look(member: "Member") -> "Standing":
    """Where a run stands, held against what it is asked to be."""
    from cissod_bench.launch.status import standing

    return standing(member, functools.partial(asked_for, member.given))


def refuse_other_runs(states: Sequence[str]) -> None:
    """Say that folders hold other runs.

    Raises:
        UserError: one does.
    """
    others = states.count("another run")
    if others:
        raise UserError(
            f"{others} of {len(states)} runs: the folder holds another run, see the table. Give another --out."
        )


def check_settings(left: "Sequence[Member]") -> None:
    """Check the settings (--set) of runs, and with them all else, before the first is started: one run of each kind.

    Raises:
        UserError: no such setting, or a run with settings that cannot be made.
    """
    kinds: dict[str, Member] = {}
    for member in left:
        if member.given["settings"]:
            kind = {name: value for name, value in member.given.items() if name not in ("seed", "split")}
            kinds.setdefault(repr(kind), member)
    for member in kinds.values():
        planned(member)


def run_all(waiting: "Sequence[Member]", total: int, quiet: bool) -> None:
    """Make runs one after the other; one that fails is noted and named, and the rest goes on.

    Raises:
        Stopped: a signal came; the run under way has stopped too.
    """
    from cissod_bench.launch.status import Note, reason_of, write_note

    for number, member in enumerate(waiting, start=total - len(waiting) + 1):
        if not quiet:
            typer.echo(f"[{number}/{total}] {member.name}")
        member.log.parent.mkdir(parents=True, exist_ok=True)
        with member.log.open("w") as log:
            command = [
                sys.executable,
                "-m",
                "cissod_bench.cli.main",
                "run",
                *member.arguments,
                "--out",
                str(member.out),
            ]
            code, received = watched(command, log)
        if received is not None:
            raise Stopped(f"Stopped in {member.name}. The same command goes on there.", received)
        failed = None if code == 0 else reason_of(member.log, code)
        write_note(member, Note(failed=failed))
        if failed and not quiet:
            typer.secho(f"  failed: {failed}", fg=typer.colors.RED)


def watched(command: Sequence[str], log: IO[str]) -> tuple[int, int | None]:
    """Run a program until it ends; its exit code, and the signal that came meanwhile and was passed on to it.

    A signal that this process was started to ignore, as `nohup` does with SIGHUP, is ignored on.
    """
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(_PASSED_ON[signal.Signals(number)])

    heeded = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        # A session of its own: Ctrl-C reaches it from here alone.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        if received:  # before there was a process to pass it on to
            process.terminate()
        return process.wait(), received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def submit_all(waiting: "Sequence[Member]", options: dict[str, Any]) -> None:
    """Submit runs as jobs, and note their numbers.

    Raises:
        UserError: one of them cannot be made, or the cluster refuses them.
    """
    from cissod_bench.launch.status import submit_member

    # All of them first: what cannot be looked up is said before the first job.
    for member, asked in [(member, asked_for(member.given)) for member in waiting]:
        gpus = 0 if member.given["device"] == "cpu" else member.given["gpus"]
        submit_member(member, asked, {**options, "nodes": member.given["nodes"], "gpus": gpus})


def submit_this(context: typer.Context, out: Path, options: dict[str, Any]) -> None:
    """Submit the `run` of a command line, unless it is on its way already.

    Args:
        context: of the command line.
        out: folder of the run.
        options: of the cluster.

    Raises:
        UserError: the folder holds another run, or the cluster refuses it.
    """
    from cissod_bench.launch.grid import arguments
    from cissod_bench.launch.status import Member

    known = run_options()
    member = Member(out.name, out.parent, tuple(arguments(_given(context, known), known)), context.params)
    state = look(member)
    if state.state == "another run":
        raise UserError(f"{out} {state.reason}. Give another --out.")
    if state.state in ("waiting", "failed"):
        submit_all([member], options)
    show_states([(member, look(member))], as_json=False)


def _given(context: Any, names: Container[str]) -> dict[str, Any]:
    """Options that are given on a command line, without those that have their defaults."""
    return {
        name: value
        for name, value in context.params.items()
        if name in names and context.get_parameter_source(name).name == "COMMANDLINE"
    }


def show_plan(found: "Sequence[Member]", as_json: bool) -> None:
    """Check every run and print what it costs.

    Raises:
        UserError: a folder holds another run.
        typer.Exit: with code 1, a run that cannot be made.
    """
    rows: list[dict[str, Any]] = []
    hours = 0.0
    for member in found:
        state, plan, problem = look(member), {}, ""
        try:
            plan = planned(member)
        except UserError as error:
            problem = str(error)
        each = plan.get("estimated_hours")
        left = 0.0 if state.state == "done" or each is None else each * max(1, plan["gpus"])
        hours += left
        row: dict[str, Any] = {
            "run": member.name,
            "state": "cannot run" if problem else state.state,
            "reason": problem or state.reason,
        }
        row |= {name: plan.get(name) for name in ("iterations", "learning_rate")}
        row |= {"images": sum(plan["batch"].values()) if plan else None, "hours": each}
        rows.append(row | {"hours_left": None if each is None else left})
    unknown = sum(row["hours_left"] is None and row["state"] != "cannot run" for row in rows)
    if as_json:
        typer.echo(json.dumps({"runs": rows, "hours_left": hours, "runs_of_unknown_time": unknown}, indent=2))
    else:
        caption = f"{len(rows)} runs; what is not done takes about {hours:.1f} hours of a GPU or of this machine"
        caption += f", and {unknown} runs of unknown time." if unknown else "."
        titles = {"state": "State", "iterations": "Iterations", "images": "Images a step", "hours": "Hours"}
        print_rows("Plan of the sweep", caption, titles, rows)
    refuse_other_runs([row["state"] for row in rows])
    if any(row["state"] == "cannot run" for row in rows):
        raise typer.Exit(1)


def planned(member: "Member") -> dict[str, Any]:
    """The plan of a run, as `run --plan --json` prints it.

    Raises:
        UserError: the run cannot be made.
    """
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        _run_command().main([*member.arguments, "--out", str(member.out), "--plan", "--json"], standalone_mode=False)
    return dict(json.loads(printed.getvalue()))


def show_states(states: "Sequence[tuple[Member, Standing]]", as_json: bool) -> None:
    """One table of states."""
    rows = [
        {"run": member.name, "out": str(member.out), "state": state.state, "reason": state.reason}
        for member, state in states
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    names = [state.state for _, state in states]
    caption = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    print_rows(f"Runs in {states[0][0].root}", caption, {"state": "State"}, rows)


def print_rows(title: str, caption: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of runs, and below it the reasons of those that have one."""
    from cissod_bench.cli.report import print_table
    from cissod_bench.leaderboard.table import Cell, Column, Table

    def text(value: Any) -> str | None:
        return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value

    columns = (Column("run", "Run"), *(Column(name, heading) for name, heading in titles.items()))
    body = tuple((Cell(row["run"]), *(Cell(text(row[name])) for name in titles)) for row in rows)
    reasons = tuple(f"{row['run']}: {row['reason']}" for row in rows if row["reason"])
    print_table(Table("sweep", title, caption, columns, body, ranked=0, notes=reasons))


@contextlib.contextmanager
def usage_errors(what: str) -> Iterator[None]:
    """Errors of a command line that the user did not type as such."""
    try:
        yield
    except _USAGE_ERROR as error:
        raise UserError(f"{what}: {error.format_message()}") from None


def _run_command() -> TyperCommand:
    application = typer.Typer(add_completion=False)
    application.command()(run)
    command = typer.main.get_command(application)
    assert isinstance(command, TyperCommand)
    return command
