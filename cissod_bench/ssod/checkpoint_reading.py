"""Checkpoints read as data: nothing in the file is executed, whoever wrote it.

A checkpoint is a pickle, which may call any function that it names. PyTorch's `weights_only` admits tensors, plain
containers and the classes listed here, whose construction does nothing else. mmengine's own loader would fall back to
executing the rest, so it is replaced for local files.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from cissod_bench.errors import UserError
from cissod_bench.ssod.data.pseudo_boxes import ImageLabels, PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import Segment


def _statistic(owner: Any, name: str) -> Any:
    """In place of `getattr`, by which a pickle refers to the methods of a history's statistics."""
    if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
        raise pickle.UnpicklingError(f"a checkpoint has no use for {name!r} of {owner!r}")
    return getattr(owner, name)


def _no_bytes() -> bytes:
    """In place of `bytes`, which a pickle calls for an empty array; with a number it would fill the memory."""
    return b""


_ARRAYS = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?SU"},
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("_core", "core") for name, function in (
        ("_reconstruct", np.empty(0).__reduce__()[0]), ("scalar", np.float64(0).__reduce__()[0]),
    )),
]  # fmt: skip
"""NumPy arrays of numbers and text; arrays of objects are none of ours."""

ADMITTED: list[Any] = [
    *_ARRAYS,
    HistoryBuffer,
    Segment,
    ImageLabels,
    PromotedLabels,
    PseudoBoxes,
    *(  # their names in version 0.1
        (Segment, "cissod_bench.engine.sampler.Segment"),
        (ImageLabels, "cissod_bench.methods.found_boxes.ImageLabels"),
        (PromotedLabels, "cissod_bench.methods.found_boxes.JoiningLabels"),
        (PseudoBoxes, "cissod_bench.methods.found_boxes.FoundBoxes"),
    ),
    (_statistic, "builtins.getattr"),
    (_no_bytes, "builtins.bytes"),
]
"""What a checkpoint may name besides what PyTorch admits: classes, or other objects with the names they stand for."""


def load_checkpoint(path: Path, *, map_location: Any = "cpu", mmap: bool = True) -> Any:
    """The content of a checkpoint.

    Args:
        path: the file.
        map_location: as of `torch.load`.
        mmap: map the tensors instead of reading them.

    Raises:
        Exception: the file is damaged, or names something that is not admitted; PyTorch has no type for all of it.
    """
    with safe_globals(ADMITTED):
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


def not_admitted(path: Path) -> list[str]:
    """Names in a checkpoint that would not be read back."""
    with safe_globals(ADMITTED):
        return sorted(get_unsafe_globals_in_checkpoint(path))


@CheckpointLoader.register_scheme(prefixes="", force=True)
def _load_local(filename: str, map_location: Any) -> Any:
    """mmengine's loader of local files, which reads what is admitted and executes nothing."""
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{filename} can not be found.")
    try:
        return load_checkpoint(path, map_location=map_location, mmap=False)
    except pickle.UnpicklingError as error:
        cause = str(error).strip().splitlines()[-1]
        raise UserError(f"{path}: holds more than weights and plain data, and is not read ({cause}).") from error
