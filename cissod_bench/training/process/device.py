"""Device and number of threads of a run."""

import contextlib
import os
from pathlib import Path

import torch

from cissod_bench.errors import UserError, unknown_name


def pick_device(name: str, processes: int = 1) -> str:
    """ "cuda" where `name` is "auto" and there is a GPU, else `name`.

    Args:
        name: "auto", "cuda" or "cpu".
        processes: training processes on this machine, each of which needs its own GPU.

    Raises:
        UserError: an unknown device, or too few GPUs.
    """
    if name not in ("auto", "cuda", "cpu"):
        raise unknown_name("device", name, ("auto", "cuda", "cpu"))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    available = torch.cuda.device_count()
    if available == 0:
        raise UserError("--device cuda: PyTorch finds no GPU. See `cissod-bench doctor`, or give --device cpu.")
    if processes > available:
        raise UserError(f"--gpus {processes}: this machine has {available}. Give fewer, or --device cpu.")
    return "cuda"


def default_threads(device: str, processes: int = 1) -> int:
    """Threads for PyTorch's CPU operators: OMP_NUM_THREADS if set, else an equal share of the usable cores.

    The host of a GPU gets one thread: it only computes small tables, for which more threads cost time (on a 16-core
    host of an H100 a tenth of a step).

    Args:
        device: "cuda" or "cpu".
        processes: training processes on this machine.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # OpenMP allows a list, one number per level
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return 1 if device == "cuda" else max(1, usable_cores() // processes)


def usable_cores(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those of its affinity mask, or fewer if a control group limits its CPU time.

    Args:
        limits: quota and period of the control group (version 2), in microseconds; "max" for no quota.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = limits.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores
