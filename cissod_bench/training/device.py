"""Device and number of threads of a run."""

import os

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


def default_threads(processes: int = 1) -> int:
    """Threads for PyTorch's CPU operators: OMP_NUM_THREADS if set, else an equal share of the cores.

    Args:
        processes: training processes on this machine.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # OpenMP allows a list, one number per level
    return int(given) if given.isdecimal() and int(given) > 0 else max(1, (os.cpu_count() or 1) // processes)
