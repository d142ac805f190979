"""Check a user's file of backbone weights before anything runs.

Weights for pixel values (caffe-style files, BGR) and for normalised values (torchvision, RGB) have the same names and
shapes. Trained on the wrong ones a run is worth nothing and says nothing, so they are told apart here: published files
by their digest, others by the scale of their first layer.

The order of the channels is not guessed from the weights. In ImageNet's MobileNetV2, which is RGB, the first layer has
2.1 times as much energy (squared weights, after batch normalisation) for red as for blue, and 23 of its 32 filters
agree. But resampled filters give 1.0 to 4.1 times (95 %), untrained ones 0.75 to 1.31 times (99 %): one network does
not show that others keep clear of that, and a wrong refusal would bar the right file. Of the published files, those in
BGR are the ones for pixel values, so the scale tells these as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file
from cissod_bench.ssod.weights import check_weights, read_weights

if TYPE_CHECKING:
    from torch import Tensor

TORCHVISION = ("0676ba61", "11ad3fa6", "19c8e357", "63fe2227", "cd907fc2", "5d3b4d8f")
CAFFE = ("788b5fa3", "5891d200", "3ad79236", "6cc46731")
"""Published ResNet-50 and ResNet-101 files by the first 8 digits of their SHA-256, which their names end in:
torchvision's, and those of Detectron and Detectron2 in mmdet's names."""

SWING = 0.2
"""Response of the first layer to an input of size 1, above which weights are for normalised pixel values.

A layer maps its inputs to values of about 1. It does so with a response of about 1 for normalised inputs (1.5 in
ImageNet's MobileNetV2) and of about 1/60 for pixel values, which are some 60 times as large.
"""


def backbone_prefix(path: Path, wanted: str) -> str | None:
    """What the names of the weights in a file begin with, "backbone." or None; mmengine has to be told.

    Args:
        path: a PyTorch checkpoint: a state dict, or a dict with one as `state_dict`.
        wanted: what the file has to hold, for messages.

    Raises:
        UserError: not a checkpoint.
    """
    state = read_weights(path, f"--backbone {path}", wanted)
    return "backbone." if any(name.startswith("backbone.") for name in state) else None


def check_backbone(path: Path, detector: Mapping[str, Any], wanted: str) -> None:
    """Make sure that a file has every weight of the backbone, in the right shape and for the right preprocessing.

    mmengine loads what fits and only logs the rest, so a wrong file would go unnoticed.

    Args:
        path: see `backbone_prefix`.
        detector: mmdet's configuration of the detector, after all settings.
        wanted: what the file has to hold, for messages.

    Raises:
        UserError: not a checkpoint, a weight is missing or of another shape, or weights for other inputs.
    """
    from mmdet.registry import MODELS

    option = f"--backbone {path}"
    prefix = backbone_prefix(path, wanted) or ""
    state = read_weights(path, option, wanted)
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    check_weights(state, MODELS.build({**detector["backbone"], "init_cfg": None}).state_dict(), option, wanted)
    normalised = max(detector["data_preprocessor"]["std"]) > 1
    found = for_normalised(path, state)
    if found is not None and found != normalised:
        kinds = {True: "normalised RGB values, as torchvision's are", False: "BGR pixel values, as caffe's are"}
        raise UserError(
            f"{option}: weights for {kinds[found]}; the detector's preprocessing is for {kinds[normalised]}. "
            f"Give {wanted}, or another --detector."
        )


def for_normalised(path: Path, state: Mapping[str, "Tensor"]) -> bool | None:
    """Whether backbone weights are for normalised inputs, False for pixel values; None where nothing tells.

    Args:
        path: the file; published ones are known by their digest.
        state: its weights, without a prefix. Others are told by their first convolution and its batch normalisation.
    """
    digest = sha256_file(path)[:8]
    if digest in TORCHVISION or digest in CAFFE:
        return digest in TORCHVISION
    first = next((name for name, value in state.items() if value.ndim == 4), "")
    norm = first.replace("conv1.conv.", "conv1.bn.") if "conv1.conv." in first else first.replace("conv1.", "bn1.")
    variance = state.get(norm.replace(".weight", ".running_var"))
    if norm == first or variance is None:
        return None
    gain = state[norm] / (variance + 1e-5).sqrt()
    swing = (state[first] * gain[:, None, None, None]).abs().sum(dim=(1, 2, 3)).mean()
    return bool(swing > SWING)
