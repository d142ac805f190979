"""Signals that stop a run: it finishes the batch, writes a checkpoint and says so."""

import contextlib
import mmap
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
"""Slurm sends SIGTERM and SIGUSR1 before the time limit; Ctrl-C sends SIGINT."""

AGREE = 10
"""Iterations after which several processes agree on stopping, which makes all of them wait."""

PATIENCE = 1.0
"""Seconds after which a second Ctrl-C is intentional: launchers repeat the first one to processes that received it."""

_HEEDED = mmap.mmap(-1, 1)
"""Whether this process currently notes signals: a byte that forked loader workers share, without a file."""


@dataclass
class StopRequest:
    """The signal that stops the run, if there was one.

    Attributes:
        signal: its number; None if there was none.
        time: its arrival by the monotonic clock.
    """

    signal: int | None = None
    time: float = 0.0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first signal of `SIGNALS` instead of dying from it; a second Ctrl-C stops at once.

    Outside the main thread Python handles no signals, so none is noted. Signals that the process was started to ignore,
    as shells do with SIGINT for background jobs, stay ignored.
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
    _HEEDED[0] = 1
    try:
        yield request
    finally:
        _HEEDED[0] = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def noted_signal(runner: Any) -> int | None:
    """The signal that this process received; None for none."""
    request: StopRequest | None = getattr(runner, "stop", None)  # mmdet's own Runner lacks it
    return None if request is None else request.signal


def stop_signal(runner: Any, done: int) -> int | None:
    """The signal that stops a run after `done` iterations, the same on all ranks; None to continue."""
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
    """Make a loader worker ignore the signals that its parent notes, for as long as it does.

    Slurm signals every process of a job, and a dying worker would take its parent along before the checkpoint is
    written. Workers end with their parent. At exit Python sends SIGTERM to those that still live and waits, so they
    must obey.
    """

    def obey_afterwards(number: int, frame: FrameType | None) -> None:
        if not _HEEDED[0]:
            os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, obey_afterwards if number == signal.SIGTERM else signal.SIG_IGN)
