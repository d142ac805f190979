"""Run on this machine: in this process, or in several processes watched by torchrun's agent."""

import os

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.launch.nodes import Nodes
from cissod_bench.launch.torchrun import launch
from cissod_bench.results.record import Result
from cissod_bench.training.job import Job
from cissod_bench.training.process.distributed import place_in_group
from cissod_bench.training.runner import run_job
from cissod_bench.training.spec import RunSpec
from cissod_bench.training.trained.fixed_ap import add_fixed_ap


def among_started(spec: RunSpec) -> tuple[RunSpec, bool]:
    """The spec with the number of processes that torchrun or srun started, and whether this is the main process.

    Raises:
        UserError: the spec asks for several processes itself.
    """
    rank, started = place_in_group(os.environ)
    if started == 1:
        return spec, True
    if (spec.gpus, spec.nodes) != (1, 1):
        raise UserError(f"--gpus and --nodes: this is already one of {started} processes. Leave these options out.")
    return msgspec.structs.replace(spec, gpus=started), rank == 0


def run_here(job: Job, nodes: Nodes, *, progress: bool = True) -> Result:
    """Train, evaluate and record.

    Args:
        job: the run.
        nodes: the machines, where there are several.
        progress: whether to show progress on standard error.

    Raises:
        UserError: the run folder holds something else, the disk is full, ...
        Stopped: the run received a signal to stop.
        ProcessDied: one of several processes died.
    """
    rank, started = place_in_group(os.environ)
    if started > 1 or job.processes == 1:
        result = run_job(job, progress=progress)
    else:
        result = _run_in_processes(job, nodes, progress=progress)
    if job.spec.fixed_ap and rank == nodes.rank == 0:
        add_fixed_ap(job.folder, job.device, progress=progress)
    return result


def _run_in_processes(job: Job, nodes: Nodes, *, progress: bool) -> Result:
    settled = {"out": job.out, "device": job.device, "workers": job.workers, "threads": job.threads}
    launch(msgspec.structs.replace(job.spec, **settled), job.out, nodes, progress=progress)
    return job.folder.result()
