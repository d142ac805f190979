"""Backbone weights from a file that the user gives, held against the backbone before anything runs."""

from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError


def check_backbone(path: Path, backbone: dict[str, Any], wanted: str) -> str | None:
    """Make sure that a file has every weight of the backbone, in the right shape.

    mmengine loads what fits and logs the rest, so a wrong file would go unnoticed.

    Args:
        path: a PyTorch checkpoint: a state dict, or a dict with one as `state_dict`; names may begin with "backbone.".
        backbone: mmdet's configuration of the backbone.
        wanted: what the file has to hold, for messages.

    Returns:
        The prefix of the names in the file ("backbone."), None without one: mmengine has to be told.

    Raises:
        UserError: not a checkpoint, or a weight is missing or of another shape.
    """
    import torch
    from mmdet.registry import MODELS

    import cissod_bench.engine.plugins  # noqa: F401  (registers mmdet's backbones)

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each have their own
        raise UserError(
            f"--backbone {path}: not a PyTorch checkpoint ({type(error).__name__}). Give {wanted}."
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    prefix = "backbone." if any(str(name).startswith("backbone.") for name in state) else ""
    state = {name.removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}
    expected = MODELS.build({**backbone, "init_cfg": None}).state_dict()
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise UserError(f"--backbone {path}: the weight {name} is missing. Give {wanted}.")
        if tuple(state[name].shape) != tuple(value.shape):
            raise UserError(
                f"--backbone {path}: the weight {name} has the shape {tuple(state[name].shape)}, the detector's has "
                f"{tuple(value.shape)}. Give {wanted}."
            )
    return prefix or None
