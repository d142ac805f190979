"""One run as several processes: their ranks, and what they exchange besides gradients.

A process learns its rank from the environment: from torchrun's variables (which `launch/torchrun.py` sets too), or from
Slurm's inside `srun`. Only the main process prints and writes the run folder; its decisions are broadcast. All
processes need the run folder and the data under the same paths.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from mmengine.dist import broadcast_object_list, is_main_process

from cissod_bench.errors import UserError

T = TypeVar("T")
PORT = 29500
"""Rendezvous port of the processes of an `srun` without MASTER_PORT; the default of torch.distributed."""


def place_in_group(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) for a single one.

    Raises:
        UserError: the environment has something else than numbers, or a rank that the group does not have.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _place("RANK", "WORLD_SIZE", environment)
    # The job step's number: in a batch script or an interactive shell it is 1, whatever the job has.
    if "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return _place("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", environment)
    return 0, 1


def _place(rank: str, size: str, environment: Mapping[str, str]) -> tuple[int, int]:
    place, count = environment[rank], environment[size]
    if not (place.isdecimal() and count.isdecimal() and int(place) < int(count)):
        raise UserError(
            f"The environment has {rank}={place} and {size}={count}, which is no place among processes. Unset them."
        )
    return int(place), int(count)


def place_from_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for a process of an `srun`.

    Raises:
        UserError: Slurm cannot name the first node.
    """
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
    try:
        first = subprocess.run(["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"scontrol cannot expand the node list {nodes!r} ({error}). Set MASTER_ADDR.") from error
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first.stdout.split()[0],
        "MASTER_PORT": environment.get("MASTER_PORT", str(PORT)),
    }


@contextlib.contextmanager
def process_group(size: int, device: str) -> Iterator[None]:
    """Join a group of `size` processes, with NCCL on GPUs and gloo on CPUs; leave together with the others.

    Raises:
        UserError: another program uses the port, or the processes cannot connect.
    """
    if size == 1 or torch.distributed.is_initialized():
        yield
        return
    if "RANK" not in os.environ:
        os.environ |= place_from_slurm(os.environ)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    except torch.distributed.DistNetworkError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"The processes cannot connect at {where} ({str(error).splitlines()[0]}). If another program uses the "
            "port, set MASTER_PORT to a free one."
        ) from error
    yield  # after an error the others may be gone, so nothing waits for them
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def from_main(decide: Callable[[], T]) -> T:
    """Let the main process decide, and return its decision on all processes."""
    values = [decide() if is_main_process() else None]
    broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


@contextlib.contextmanager
def main_process_speaks(console: Path) -> Iterator[None]:
    """Redirect what libraries print: to a file on the main process, to nowhere on the others."""
    with (console if is_main_process() else Path(os.devnull)).open("a") as file, contextlib.redirect_stdout(file):
        yield
