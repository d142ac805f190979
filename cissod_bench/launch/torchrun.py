"""Start the processes of a run on this machine with torchrun's own agent, and watch them.

When a process dies, the agent stops the others. The error reported is that of the process that died first, not of those
that lost their partner. Signals to this process are passed on to all of them.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cissod_bench.errors import ProcessDied, Stopped, UserError
from cissod_bench.launch.nodes import Nodes
from cissod_bench.training.spec import RunSpec, encode_spec

_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|Dist\w*Error", re.IGNORECASE)
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""Signals that the agent handles: its own, and the one that Slurm can send before the time limit (`stopping.py`)."""
MEETING_SECONDS = 300
STOPPING_SECONDS = 80
"""Time for a last checkpoint before processes are killed; Slurm allows 90 seconds."""


def launch(spec: RunSpec, out: Path, nodes: Nodes, *, progress: bool = True) -> None:
    """Execute a run with several processes, `spec.gpus` of them on this machine, until all have ended.

    Args:
        spec: the run, already checked.
        out: the run folder, for messages.
        nodes: the machines of the run.
        progress: whether the main process shows progress.

    Raises:
        UserError: the run is not possible, or the nodes cannot connect.
        Stopped: the run received a signal to stop.
        ProcessDied: a process died; the others were stopped.
    """
    check_port(nodes)
    before = {number: signal.getsignal(number) for number in _HANDLED}
    with tempfile.TemporaryDirectory(prefix="cissod-bench-") as folder:
        request = Path(folder) / "spec.json"
        request.write_bytes(encode_spec(spec))
        config = LaunchConfig(
            min_nodes=nodes.count,
            max_nodes=nodes.count,
            nproc_per_node=spec.gpus,
            run_id="cissod-bench",
            rdzv_backend="c10d" if nodes.rendezvous is None else "static",
            rdzv_endpoint=nodes.rendezvous or "localhost:0",
            rdzv_configs={"timeout": MEETING_SECONDS, "rank": nodes.rank},
            max_restarts=0,
            local_addr="localhost" if nodes.rendezvous is None else None,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(number.name for number in _HANDLED),
        )
        try:
            with _quiet_agent():
                words = [str(request), *([] if progress else ["quiet"])]
                elastic_launch(config, sys.executable)("-u", "-m", "cissod_bench.launch.worker", *words)
        except ChildFailedError as failed:
            raise described(failed.failures, spec.processes, out) from None
        except SignalException as stopped:
            raise Stopped(
                f"Stopped by {stopped.sigval.name}. Run the same command again to resume from the newest checkpoint in "
                f"{out}.",
                stopped.sigval,
            ) from None
        except (DistNetworkError, DistStoreError) as error:
            raise UserError(
                f"--rendezvous {nodes.rendezvous}: the nodes cannot connect there ({str(error).splitlines()[0]})."
            ) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_agent() -> Iterator[None]:
    """Silence the agent, since errors are reported here, and give processes time for a last checkpoint.

    torchrun reads that time from the environment, where the user may have set it.
    """
    name, log = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", logging.getLogger("torch.distributed.elastic")
    given, level = name in os.environ, log.level
    os.environ.setdefault(name, str(STOPPING_SECONDS))
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
        if not given:
            del os.environ[name]


def check_port(nodes: Nodes) -> None:
    """Make sure that the rendezvous port is free on the first machine.

    Raises:
        UserError: it is in use.
    """
    if nodes.rendezvous is None or nodes.rank != 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(nodes.rendezvous.rpartition(":")[2])))
        except OSError as error:
            raise UserError(
                f"--rendezvous {nodes.rendezvous}: the port cannot be used ({error.strerror}). Give all nodes a free "
                "port; on a single machine leave --rendezvous out."
            ) from None


def described(failures: Mapping[int, ProcessFailure], size: int, out: Path) -> Exception:
    """The exception to raise for failed processes: the error of the process that caused the others to fail.

    Args:
        failures: by rank.
        size: number of processes on all nodes.
        out: the run folder.
    """
    rank, failure = min(failures.items(), key=lambda item: (_order(item[1]), item[1].timestamp))
    kind, _, text = message(failure).partition(": ")
    if kind == "UserError":
        return UserError(text)
    if kind == "Stopped":
        return Stopped(text, failure.exitcode - 128)
    again = f"The others were stopped; run the same command again to resume from the newest checkpoint in {out}."
    who = f"Process {rank} of {size} (pid {failure.pid})"
    if not kind:
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"exited with {failure.exitcode}"
        return ProcessDied(f"{who} {how}. {again}")
    if _LOST.search(message(failure)):
        return ProcessDied(f"{who} lost the others, which may run on another node: {message(failure)}. {again}")
    return ProcessDied(f"{traceback_of(failure)}{who} died: {message(failure)}. {again}")


def _order(failure: ProcessFailure) -> int:
    """How likely a failure caused the others: 0 most, 3 least."""
    if message(failure):
        return 2 if _LOST.search(message(failure)) else 0
    return 3 if failure.exitcode == -signal.SIGTERM else 1  # the agent stops processes with SIGTERM


def message(failure: ProcessFailure) -> str:
    """The exception that a process reported before it ended; "" if it reported none."""
    content = failure.error_file_data.get("message")  # without a report this is a meaningless string
    return str(content["message"]) if isinstance(content, dict) else ""


def traceback_of(failure: ProcessFailure) -> str:
    """Where a process failed."""
    content = failure.error_file_data.get("message")
    return str(content["extraInfo"]["py_callstack"]) if isinstance(content, dict) else ""
