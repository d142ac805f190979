"""Option types shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.errors import UserError

DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="CISSOD_DATA_ROOT",
        rich_help_panel="Data",
        help="Folder with the data sets and splits (coco/, lvis/, objects365/, splits/).",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel="Output", help="Print JSON instead of text.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Execute what the run brings along, such as the source of its own method. Only for runs whose origin you "
        "know.",
    ),
]

Slurm = Annotated[
    bool,
    typer.Option(
        "--slurm",
        rich_help_panel="Machine",
        help="Submit to Slurm (submitit). The job resumes by itself after its time limit.",
    ),
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm-option",
        metavar="NAME=VALUE",
        rich_help_panel="Machine",
        help="time=MINUTES, and any other sbatch option such as partition=gpu, account or mem. Repeatable. "
        "cluster=local runs the jobs as processes on this machine.",
    ),
]


def cluster_options(slurm: bool, given: list[str] | None) -> dict[str, str] | None:
    """Options of the cluster to submit to, None to train here.

    Args:
        slurm: --slurm.
        given: NAME=VALUE pairs of --slurm-option.

    Raises:
        UserError: cluster options without --slurm, or invalid ones.
    """
    if slurm:
        return slurm_options(given)
    if given:
        raise UserError(f"--slurm-option {given[0]}: this option needs --slurm. Add it, or leave this out.")
    return None


def slurm_options(given: list[str] | None) -> dict[str, str]:
    """Read NAME=VALUE pairs for the cluster; the result has `cluster` and `time`.

    Raises:
        UserError: a text without "=", an unknown cluster, or no time.
    """
    from cissod_bench.launch.slurm import check_options

    options = {"cluster": "slurm"}
    for text in given or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--slurm-option {text}: write NAME=VALUE.")
        options[name.replace("_", "-")] = value
    check_options(options)
    return options
