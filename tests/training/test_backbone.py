"""Backbone weights are for the backbone that all settings make, and for its preprocessing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS

from cissod_bench.errors import UserError
from cissod_bench.training.backbone import TORCHVISION, check_backbone, for_normalised
from cissod_bench.training.preflight import check_parts
from cissod_bench.training.recipes.detectors import get_detector
from tests.tiny import tiny_job

CAFFE, NORMALISED = (get_detector(name).model(80, 100) for name in ("r50-fpn", "r50-fpn-torchvision"))


def resnet50() -> dict[str, torch.Tensor]:
    """Weights of ResNet-50 with the statistics that normalised images of ImageNet's kind leave in the first layer."""
    torch.manual_seed(0)
    backbone = MODELS.build({**NORMALISED["backbone"], "frozen_stages": -1, "norm_eval": False})
    backbone.train()
    backbone.bn1.momentum = 1.0
    backbone.bn1.weight.data.fill_(0.25)
    smooth = torch.nn.functional.interpolate(torch.randn(8, 3, 16, 16), scale_factor=8, mode="bilinear")
    with torch.no_grad():
        backbone(smooth / smooth.std())
    return dict(backbone.state_dict())


def for_pixels(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same network for BGR pixel values, which are 58 times as large: the weights that a caffe-style file has."""
    return {**state, "conv1.weight": state["conv1.weight"].flip(1) / 58}


@pytest.mark.parametrize(
    ("detector", "change", "said"),
    [
        (NORMALISED, dict, None),
        (CAFFE, for_pixels, None),
        (CAFFE, dict, "weights for normalised RGB values, as torchvision's are"),
        (NORMALISED, for_pixels, "weights for BGR pixel values, as caffe's are"),
    ],
)
def test_weights_for_other_inputs_are_refused(detector: Any, change: Any, said: str | None, tmp_path: Path) -> None:
    """Names and shapes are the same: torchvision's file was taken for the caffe-style preset."""
    torch.save(change(resnet50()), tmp_path / "r50.pth")
    if said is None:
        check_backbone(tmp_path / "r50.pth", detector, "the right file")
        return
    with pytest.raises(UserError, match=said):
        check_backbone(tmp_path / "r50.pth", detector, "the right file")


def test_published_files_are_known_by_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cissod_bench.training.backbone.sha256_file", lambda path: f"{TORCHVISION[0]}{'0' * 56}")
    assert for_normalised(tmp_path / "any.pth", {}) is True
    monkeypatch.setattr("cissod_bench.training.backbone.sha256_file", lambda path: "0" * 64)
    assert for_normalised(tmp_path / "any.pth", {}) is None


def test_the_check_comes_after_all_settings(tiny: Path, tmp_path: Path) -> None:
    """With another depth set, a file of the preset's depth passed `--plan`."""
    backbone = get_detector("r18-small").model(12, 100)["backbone"]
    torch.save(MODELS.build(backbone).state_dict(), tmp_path / "r18.pth")
    check_parts(tiny_job(tiny, tmp_path / "run", backbone=tmp_path / "r18.pth"))
    deeper = {"model.detector.backbone.depth": 34}
    with pytest.raises(UserError, match=r"the weight layer1\.2\.conv1\.weight is missing"):
        check_parts(tiny_job(tiny, tmp_path / "run", backbone=tmp_path / "r18.pth", overrides=deeper))
    torch.save(MODELS.build({**backbone, "depth": 34}).state_dict(), tmp_path / "r34.pth")
    check_parts(tiny_job(tiny, tmp_path / "run", backbone=tmp_path / "r34.pth", overrides=deeper))
