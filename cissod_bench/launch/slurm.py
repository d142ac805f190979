"""Runs as Slurm jobs, through submitit; its local executor starts processes on this machine instead.

A job has one task per node, which starts `cissod-bench run` there. Before the time limit or a preemption, the task
stops the run, which writes a checkpoint, and Slurm requeues the job. The run folder says where to resume.
"""

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.launch.failure import reason_of

CLUSTERS = ("slurm", "local")
_STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)
_RUNNING = ("RUNNING", "COMPLETING")
_QUEUED = ("PENDING", "REQUEUED", "READY", "SUSPENDED", "UNKNOWN")


@dataclass
class RunTask:
    """The callable that submitit pickles and calls in each task of a job.

    Attributes:
        arguments: arguments of `run`, without those that locate the nodes.
        log: file for the output of the run; the reason of a failure is read from it.
    """

    arguments: Sequence[str]
    log: Path
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def __call__(self) -> None:
        """Run until the end.

        Raises:
            RuntimeError: the run failed; the message gives the reason.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        nodes = environment.num_nodes
        place = []
        if nodes > 1:
            port = 20_000 + int(environment.raw_job_id) % 10_000
            place = ["--node-rank", str(environment.node), "--rendezvous", f"{environment.hostnames[0]}:{port}"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w" if environment.node == 0 else "a") as log:
            command = [sys.executable, "-m", "cissod_bench.cli.main", "run", *self.arguments, *place]
            # Slurm warns every process of the job; the run must hear it once, from this process.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_deaf, env=_own_environment())
            _wait(self._process)
            code = self._process.wait()
        # On other nodes a run that was told to stop has not failed.
        if code and (environment.node == 0 or code not in _STOPPED):
            raise RuntimeError(reason_of(self.log, code))

    def checkpoint(self) -> Any:
        """Stop the run and have it requeued."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            _wait(self._process)
        return DelayedSubmission(RunTask(self.arguments, self.log))


def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process, also through signals; its exit code stays readable."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _deaf() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _own_environment() -> dict[str, str]:
    """The environment without the variables that would make a run think it is a task of the job step."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_STEP_")}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a cluster that no job can be submitted with.

    Raises:
        UserError: an unknown cluster, or no time.
    """
    if options.get("cluster") not in CLUSTERS:
        raise unknown_name("cluster", str(options.get("cluster")), CLUSTERS)
    if not str(options.get("time", "")).isdecimal():
        raise UserError("--slurm needs --slurm-option time=MINUTES, the time limit of the job.")


def submit(arguments: Sequence[str], log: Path, folder: Path, options: Mapping[str, Any]) -> str:
    """Submit a run as a job.

    Args:
        arguments: arguments of `run`.
        log: file for its output.
        folder: folder for submitit's scripts, pickles and logs.
        options: `cluster`, `nodes`, `gpus` per node, `time` in minutes, and any other options of sbatch.

    Returns:
        The number of the job.

    Raises:
        UserError: the cluster is not available here, or refuses the job.
    """
    import submitit

    cluster, gpus = str(options["cluster"]), int(options["gpus"])
    named = {name: value for name, value in options.items() if name not in ("cluster", "gpus", "nodes", "time")}
    try:
        if cluster == "slurm":
            # Interruptions cost nothing, so allow many.
            executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=1000)
            executor.update_parameters(
                name=log.stem,
                nodes=int(options["nodes"]),
                tasks_per_node=1,
                gpus_per_node=gpus,
                slurm_time=int(options["time"]),
                slurm_additional_parameters={"requeue": True, **named},
            )
        else:
            executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            executor.update_parameters(tasks_per_node=1, gpus_per_node=gpus, timeout_min=int(options["time"]))
        job: Any = executor.submit(RunTask(tuple(arguments), log))
    except Exception as error:  # submitit and sbatch raise various types
        raise UserError(f"{cluster}: the job cannot be submitted ({error}).") from error
    return str(job.job_id)


def job_state(cluster: str, job_id: str, folder: Path) -> tuple[Literal["running", "queued", "failed"], str]:
    """State of a job whose run is unfinished, and why it failed.

    Args:
        cluster: "slurm" or "local".
        job_id: number of the job.
        folder: the folder it was submitted with.
    """
    from submitit import Job, LocalJob, SlurmJob

    job: Job[None] = SlurmJob(folder, job_id) if cluster == "slurm" else LocalJob(folder, job_id)
    if job.paths.result_pickle.exists():
        return "failed", f"job {job_id}: {job_error(job.paths.result_pickle)}"
    if cluster == "local":
        return ("running", "") if _alive(int(job_id)) else ("failed", f"process {job_id} died; {job.paths.stderr}")
    state = str(job.get_info(mode="force").get("State", "UNKNOWN")).split()[0]
    if state in _RUNNING:
        return "running", f"job {job_id}"
    if state in _QUEUED:
        return "queued", f"job {job_id}"
    return "failed", f"job {job_id}: Slurm says {state}; {job.paths.stderr}"


class _Text(pickle.Unpickler):
    """Reads text and plain containers; a pickle that names anything to call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is named."""
        raise pickle.UnpicklingError(f"{module}.{name} is not text")


def job_error(result: Path) -> str:
    """Why a job failed, by the result that submitit has left; nothing in the file is executed.

    Args:
        result: a pickle of `("error", traceback)` or `("success", value)`.
    """
    try:
        with result.open("rb") as file:
            kind, value = _Text(file).load()
    except Exception as error:  # whatever a damaged pickle leads to
        return f"{result} cannot be read ({error})"
    return _raised(value) if kind == "error" and isinstance(value, str) else "it ended without a result"


def _raised(text: str) -> str:
    """The exception in a traceback that submitit wrapped in its own lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = next((line for line in reversed(lines) if re.match(r"[\w.]*Error: ", line)), lines[-1])
    return raised.removeprefix("RuntimeError: ")


def _alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False
