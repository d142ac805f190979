"""Read weights from a user's file and check them against the module they are for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file
from torch import Tensor

from cissod_bench.errors import UserError

SAFETENSORS = ".safetensors"


@CheckpointLoader.register_scheme(prefixes=(rf".*\{SAFETENSORS}$",))
def load_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """What mmengine loads a file of tensors by, whose name it knows by its end."""
    return {"state_dict": load_file(filename)}


def read_weights(path: Path, option: str, wanted: str) -> dict[str, Tensor]:
    """Read a safetensors file, or the state dict of a PyTorch checkpoint, which is one or contains one as `state_dict`.

    Args:
        path: the file.
        option: the option that named the file, for messages.
        wanted: what the file must hold, for messages.

    Raises:
        UserError: not a checkpoint.
    """
    try:
        if path.suffix == SAFETENSORS:
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise various types
        raise UserError(f"{option}: neither a PyTorch checkpoint nor safetensors. Give {wanted}.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(name): value for name, value in state.items()}


def check_weights(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], option: str, wanted: str
) -> dict[str, Tensor]:
    """Make sure that a state dict has every weight of a module, in the right shape.

    Args:
        state: the weights read.
        expected: state dict of the module; batch counters may be missing.
        option: the option that named the file, for messages.
        wanted: what the file must hold, for messages.

    Returns:
        The expected weights alone.

    Raises:
        UserError: a weight is missing or of another shape.
    """
    found = {}
    for name, value in expected.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                continue
            raise UserError(f"{option}: the weight {name} is missing. Give {wanted}.")
        if tuple(state[name].shape) != tuple(value.shape):
            raise UserError(
                f"{option}: the weight {name} has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}. "
                f"Give {wanted}."
            )
        found[name] = state[name]
    return found
