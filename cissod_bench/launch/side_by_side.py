"""Execute runs on this machine, one after another or several at a time, each in its own process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

from cissod_bench.errors import Stopped, UserError
from cissod_bench.io import lock
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.failure import reason_of
from cissod_bench.launch.status import LEFT, Member, Note, state_of, write_note
from cissod_bench.launch.worker import end_with

_PASSED_ON = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}
"""Signals that stop a sweep -> the signal passed on to its runs, which then write checkpoints."""
POLL = 0.1
"""Seconds between two looks at the processes."""
Slot = Mapping[str, str]
"""What a run finds in its environment besides the rest."""


def slots(jobs: int | None, gpus_per_run: int | None) -> list[Slot]:
    """The places that runs take at the same time.

    Args:
        jobs: runs at a time, sharing the machine's GPU or cores; None for one, or as many as there are GPUs for.
        gpus_per_run: GPUs that each run has for itself; None for whatever its own settings say.

    Raises:
        UserError: there are too few GPUs, or a number is none from 1 on.
    """
    from cissod_bench.training.process.device import usable_cores

    for option, number in (("--jobs", jobs), ("--gpus-per-run", gpus_per_run)):
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(f"{option} {number!r}: give a whole number from 1 on.")
    if gpus_per_run is None:
        count = jobs or 1
        alone = count == 1 or "OMP_NUM_THREADS" in os.environ
        return [{} if alone else {"OMP_NUM_THREADS": str(max(1, usable_cores() // count))}] * count
    gpus = _visible_gpus()
    count = jobs or len(gpus) // gpus_per_run
    if count * gpus_per_run > len(gpus) or count == 0:
        raise UserError(
            f"--gpus-per-run {gpus_per_run}: {max(1, count)} at a time need {max(1, count) * gpus_per_run} GPUs; "
            f"this machine has {len(gpus)}."
        )
    parts = (gpus[place * gpus_per_run : (place + 1) * gpus_per_run] for place in range(count))
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]


def _visible_gpus() -> list[str]:
    """Names of the GPUs, for CUDA_VISIBLE_DEVICES; looking for them opens no context on any."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class _Started:
    member: Member
    process: "subprocess.Popen[bytes]"
    slot: Slot
    held: ExitStack


def run_all(
    waiting: Sequence[Member],
    starts: Callable[[int, Member], None],
    fails: Callable[[str], None],
    places: Sequence[Slot] = ({},),
) -> None:
    """Execute runs, each in its own process, as many at a time as there are places. A failure is noted.

    Args:
        waiting: the runs.
        starts: called with the position and the run before each start.
        fails: called with the reason after each failure.
        places: see `slots`.

    Raises:
        Stopped: the sweep received a signal; the runs under way have stopped too.
    """
    free, left, running = list(places), list(enumerate(waiting)), list[_Started]()
    stopped: list[str] = []
    with _passing_on(running) as received:
        while (left and not received) or running:
            while left and free and not received:
                position, member = left.pop(0)
                held = _taken(member)
                if held is None:
                    continue
                starts(position, member)
                running.append(_start(member, free.pop(0), held))
                if received:  # the signal came before the process was known
                    running[-1].process.terminate()
            for started in [each for each in running if each.process.poll() is not None]:
                running.remove(started)
                free.append(started.slot)
                if received:
                    started.held.close()
                    stopped.append(started.member.name)
                    continue
                code = started.process.returncode
                failed = None if code == 0 else reason_of(started.member.log, code)
                write_note(started.member, Note(failed=failed))
                started.held.close()
                if failed:
                    fails(failed)
            if running:
                time.sleep(POLL)
    if received:
        raise Stopped(f"Stopped in {', '.join(stopped)}. Run the same command again to resume there.", received[0])


def command_of(member: Member) -> list[str]:
    """The program that makes a run."""
    return [sys.executable, "-m", "cissod_bench.cli.main", "run", *run_arguments(member.spec)]


def _taken(member: Member) -> ExitStack | None:
    """Lock a run and its log until the stack is closed; None if another sweep has it, or had it meanwhile."""
    member.log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(lock(member.log.with_suffix(".lock")))
        except BlockingIOError:
            return None
        return held.pop_all() if state_of(member).state in LEFT else None


def _start(member: Member, slot: Slot, held: ExitStack) -> _Started:
    command = command_of(member)
    with member.log.open("w") as log:
        # Its own session, so that Ctrl-C reaches it only through this process; killed, this process takes it along.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **slot},
            preexec_fn=partial(end_with, os.getpid()),
        )
    return _Started(member, process, slot, held)


@contextmanager
def _passing_on(running: Sequence[_Started]) -> Iterator[list[int]]:
    """Pass signals on to the runs, and collect them.

    A signal that this process was started to ignore, such as SIGHUP under `nohup`, stays ignored.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for started in running:
            started.process.send_signal(_PASSED_ON[signal.Signals(number)])

    heeded = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
