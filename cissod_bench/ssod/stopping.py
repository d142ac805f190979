"""Signals that ask a run to stop: it finishes the batch, leaves a checkpoint, and says so."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGTERM and SIGUSR1 are what Slurm sends before it takes the machine away, SIGINT is Ctrl-C."""

AGREE = 10
"""Iterations between two agreements of several processes, each of which waits for all of them."""

PATIENCE = 1.0
"""Seconds after which a second Ctrl-C is meant: launchers pass the first one on to processes that have had it."""

_HEEDED = multiprocessing.RawValue("b", 0)
"""Whether this process notes signals now; loader workers, which are forked from it, see the same byte."""


@dataclass
class StopRequest:
    """Which signal has asked the run to stop, None as long as none has.

    Attributes:
        signal: its number.
        time: when it came, by the monotonic clock.
    """

    signal: int | None = None
    time: float = 0.0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first signal of `SIGNALS` instead of dying of it; a second Ctrl-C stops at once.

    Elsewhere than in the main thread, where Python handles no signals, nothing is ever noted, nor is a signal that the
    process was started to ignore, as shells start background jobs with SIGINT.
    """
    request, owner = StopRequest(), os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # loader workers inherit the handler
            return
        now = time.monotonic()
        if request.signal is None:
            request.signal, request.time = number, now
            when = "after this batch" if get_world_size() == 1 else f"within {AGREE} batches"
            if is_main_process():
                name = signal.Signals(number).name
                print(f"{name}: stopping {when}.", file=sys.stderr, flush=True)
        elif number == signal.SIGINT and now - request.time > PATIENCE:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    _HEEDED.value = True
    try:
        yield request
    finally:
        _HEEDED.value = False
        for number, handler in before.items():
            signal.signal(number, handler)


def noted_signal(runner: Any) -> int | None:
    """The signal that this process has had, None for none."""
    request: StopRequest | None = getattr(runner, "stop", None)  # mmdet's own Runner has none
    return None if request is None else request.signal


def stop_signal(runner: Any, done: int) -> int | None:
    """The signal that a run has to stop for after `done` iterations, the same on all ranks; None to go on."""
    if not hasattr(runner, "stop"):
        return None
    if get_world_size() == 1:
        return noted_signal(runner)
    if done % AGREE:
        return None
    agreed = torch.tensor(noted_signal(runner) or 0)
    all_reduce(agreed, "max")
    return int(agreed) or None


def deaf_worker(worker_id: int) -> None:
    """Make a loader worker deaf to the signals that its parent heeds, for as long as it does.

    Slurm sends them to every process of a job, and a worker that dies of one takes its parent along before the
    checkpoint is written. A worker ends when its parent does; what still lives when Python exits gets a SIGTERM from it
    and has to obey, since Python then waits.
    """

    def obey_afterwards(number: int, frame: FrameType | None) -> None:
        if not _HEEDED.value:
            os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, obey_afterwards if number == signal.SIGTERM else signal.SIG_IGN)
