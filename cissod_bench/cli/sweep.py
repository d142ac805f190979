"""`cissod-bench sweep`: a grid of runs."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cissod_bench.cli.console import print_json, print_rows, print_states, say
from cissod_bench.cli.options import Json, Slurm, SlurmOptions, cluster_options
from cissod_bench.cli.run import run
from cissod_bench.errors import UserError
from cissod_bench.words import counted

if TYPE_CHECKING:
    from cissod_bench.launch.grid import Grid
    from cissod_bench.launch.status import Member

# Typer exports only this usage error; its base class is click's, and Typer's own from version 0.26 on.
_USAGE_ERROR: Any = typer.BadParameter.__base__

NOT_OURS = ("out", "as_json", "plan_only", "exported", "node_rank", "rendezvous", "slurm", "slurm_option")
"""Options of `run` that a sweep sets itself or that make no sense in one."""


def sweep(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE.toml] [OPTIONS OF RUN]", help="Sweep file, and options of `run` that all runs share."
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task. Repeatable, like the next four options.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method.")] = None,
    ablation: Annotated[list[str] | None, typer.Option(help="Ablation, in addition to the methods.")] = None,
    schedule: Annotated[list[str] | None, typer.Option(help="Schedule.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Training seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all run folders. Default: that of the sweep file, or runs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every run and print the plan and its cost, without running.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time on this machine. Default: 1.", show_default=False)
    ] = None,
    gpus_per_run: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs for each run alone; as many runs at a time as there are.", show_default=False),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Print the state of every run, without running.")] = False,
    slurm: Slurm = False,
    slurm_option: SlurmOptions = None,
    as_json: Json = False,
) -> None:
    """Run a grid of methods, tasks, seeds or any other options.

    Define the grid in a file (see docs/slurm.md) or with the options below. Other options of `run` apply to all
    runs. Runs are executed one after another or --jobs at a time, each in its own process, or as Slurm jobs. Repeat
    the command to skip finished runs, resume interrupted ones and retry failed ones. Exit code 1: a run failed. Exit
    code 2: nothing was started, because a setting does not exist or a folder holds another run.
    """
    from cissod_bench.launch import sweep as sweeps

    cluster = cluster_options(slurm, slurm_option)
    axes = {"task": task, "method": method, "ablation": ablation, "schedule": schedule, "seed": seed}
    grid = read(arguments or [], {name: values for name, values in axes.items() if values})
    members = sweeps.grid_members(grid.runs, out or grid.out or Path("runs"))
    if dry_run:
        show_plan(sweeps.plan_members(members), as_json)
        return

    def starts(position: int, member: "Member") -> None:
        if not as_json:
            say(f"[{position + 1}/{len(members)}] {member.name}")

    def fails(reason: str) -> None:
        if not as_json:
            say(f"  failed: {reason}", color=typer.colors.RED)

    here = {"jobs": jobs, "gpus_per_run": gpus_per_run}
    runs = sweeps.make_members(members, start=not status, cluster=cluster, starts=starts, fails=fails, **here)
    print_states(runs, as_json)
    sweeps.refuse_other_runs([run.state for run in runs])
    if any(run.state == "failed" for run in runs):
        raise typer.Exit(1)


def read(arguments: Sequence[str], axes: dict[str, list[Any]]) -> "Grid":
    """The grid from a file or from options.

    Raises:
        UserError: an option that `run` does not have, a value that it does not take, or both a file and axes of it.
    """
    from cissod_bench.launch.grid import Grid, expand, read_grid

    file = Path(arguments[0]) if arguments and not arguments[0].startswith("-") else None
    shared = shared_options(arguments[1:] if file else arguments)
    if file is None:
        return Grid(None, expand("sweep", shared, [axes]))
    if axes:
        raise UserError(f"{file}: the file defines the grid. Remove --{next(iter(axes))}, or leave out the file.")
    return read_grid(file, shared)


def shared_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Options of `run` given on the command line, by name.

    Raises:
        UserError: `run` does not have one of them, or does not accept its value.
    """
    application = typer.Typer(add_completion=False)
    application.command()(run)
    command = typer.main.get_command(application)
    assert isinstance(command, TyperCommand)
    with usage_errors("sweep"):
        context = command.make_context("run", ["--task", "any", *arguments])
    given = _given(context)
    for parameter in command.params:
        if parameter.name in NOT_OURS and parameter.name in given:
            instead = "; --dry-run plans all of them" if parameter.name == "plan_only" else ""
            raise UserError(f"sweep: {parameter.opts[0]} is for a single run. Leave it out{instead}.")
    return {name: value for name, value in given.items() if name != "task"}


def _given(context: Any) -> dict[str, Any]:
    """Options given on the command line, without defaults."""
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name).name == "COMMANDLINE"
    }


def show_plan(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print what every run costs.

    Raises:
        UserError: a folder holds another run.
        typer.Exit: with code 1, a run that cannot be made.
    """
    from cissod_bench.launch.sweep import refuse_other_runs

    hours = sum(row["hours_left"] or 0.0 for row in rows)
    unknown = sum(row["hours_left"] is None and row["state"] != "cannot run" for row in rows)
    if as_json:
        print_json({"runs": rows, "hours_left": hours, "runs_of_unknown_time": unknown})
    else:
        caption = (
            f"{counted(len(rows), 'run')}; what is unfinished takes about {hours:.1f} hours of a GPU or of this machine"
        )
        caption += f", and {counted(unknown, 'run')} of unknown time." if unknown else "."
        titles = {"state": "State", "iterations": "Iterations", "images": "Images a step", "hours": "Hours"}
        print_rows("Plan of the sweep", caption, titles, rows)
    refuse_other_runs([row["state"] for row in rows])
    if any(row["state"] == "cannot run" for row in rows):
        raise typer.Exit(1)


@contextlib.contextmanager
def usage_errors(what: str) -> Iterator[None]:
    """Report usage errors of arguments that the user gave indirectly."""
    try:
        yield
    except _USAGE_ERROR as error:
        raise UserError(f"{what}: {error.format_message()}") from None
