"""Check a user's file of backbone weights before anything runs."""

from pathlib import Path
from typing import Any

from cissod_bench.ssod.weights import check_weights, read_weights


def check_backbone(path: Path, backbone: dict[str, Any], wanted: str) -> str | None:
    """Make sure that a file has every weight of the backbone, in the right shape.

    mmengine loads what fits and only logs the rest, so a wrong file would go unnoticed.

    Args:
        path: a PyTorch checkpoint: a state dict, or a dict with one as `state_dict`; names may begin with "backbone.".
        backbone: mmdet's configuration of the backbone.
        wanted: what the file must hold, for messages.

    Returns:
        The prefix of the names in the file ("backbone.") for mmengine, or None.

    Raises:
        UserError: not a checkpoint, or a weight is missing or of another shape.
    """
    from mmdet.registry import MODELS

    option = f"--backbone {path}"
    state = read_weights(path, option, wanted)
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    check_weights(state, MODELS.build({**backbone, "init_cfg": None}).state_dict(), option, wanted)
    return prefix or None
