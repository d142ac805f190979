"""Detectors from files: what mmdet makes of them, what they leave out, and what is refused."""

import re
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from cissod_bench.errors import UserError
from cissod_bench.training.recipes.detector import PAPER
from cissod_bench.training.recipes.detector_file import detector_from_file
from cissod_bench.training.recipes.detectors import get_detector

EXAMPLE = Path(__file__).parents[3] / "examples" / "detectors" / "mobilenet-v2-416.py"
FROM_SCRATCH = 'backbone=dict(frozen_stages=-1, norm_eval=False, norm_cfg=dict(type="BN", requires_grad=True))'


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(text)
    return file


def test_an_empty_model_is_the_papers(tmp_path: Path) -> None:
    given = detector_from_file(write(tmp_path, "model = dict()\n"))
    preset = get_detector("r50-fpn-torchvision")
    assert given.model(7, 50) == preset.model(7, 50)
    for name, value in PAPER.items():
        if name != "step_seconds":
            assert getattr(given, name) == value


def test_a_part_of_another_type_replaces_the_papers(tmp_path: Path) -> None:
    text = """
model = dict(
    backbone=dict(type="MobileNetV2", out_indices=(1, 2, 4, 7)),
    neck=dict(in_channels=[24, 32, 96, 1280]),
    roi_head=dict(bbox_head=dict(type="Shared4Conv1FCBBoxHead", fc_out_channels=64, conv_out_channels=32)),
)
"""
    model = detector_from_file(write(tmp_path, text)).model(5, 20)
    assert model["backbone"] == {"type": "MobileNetV2", "out_indices": (1, 2, 4, 7)}
    assert model["neck"]["type"] == "FPN"
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(ConfigDict(model))
    head = detector.roi_head.bbox_head
    assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
    assert head.fc_cls.weight.shape == (6, 64)
    assert detector.test_cfg.rcnn.max_per_img == 20


def test_what_mmdet_ships_can_be_pasted(tmp_path: Path) -> None:
    import mmdet

    base = Path(mmdet.__file__).parent / ".mim" / "configs" / "_base_" / "models" / "faster-rcnn_r50_fpn.py"
    if not base.exists():
        pytest.skip("mmdet's configurations are not installed")
    detector = detector_from_file(write(tmp_path, base.read_text()))
    assert detector.file is not None
    assert detector.file.weights == "torchvision://resnet50"


def test_the_digest_is_of_what_the_file_says(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        file = detector_from_file(write(tmp_path, text)).file
        assert file is not None
        return file.digest

    plain = digest("model = dict(neck=dict(out_channels=64))\n")
    assert digest("# a remark\nwidth = 64\nmodel = {'neck': {'out_channels': width}}\n") == plain
    assert digest("model = dict(neck=dict(out_channels=65))\n") != plain
    assert digest("model = dict(neck=dict(out_channels=64))\nrecipe = dict(theta=0.8)\n") != plain


def test_frozen_parts_need_weights(tmp_path: Path) -> None:
    frozen = detector_from_file(write(tmp_path, "model = dict()\n")).file
    free = detector_from_file(write(tmp_path, f"model = dict({FROM_SCRATCH})\n")).file
    assert frozen is not None
    assert frozen.weights
    assert free is not None
    assert free.weights is None


def test_the_example(tmp_path: Path) -> None:
    detector = get_detector(str(EXAMPLE))
    assert detector.name == "mobilenet-v2-416"
    with DefaultScope.overwrite_default_scope("mmdet"):
        built = MODELS.build(ConfigDict(detector.model(20, 100)))
    assert sum(parameter.numel() for parameter in built.parameters()) < 5_000_000
    assert detector.semi["unsup_weight"] == 2.0
    assert detector.semi["rpn_pseudo_thr"] == 0.9  # the paper's


BAD: dict[str, tuple[str, str]] = {
    "no model": ("recipe = dict()\n", "no model"),
    "one stage": ('model = dict(type="RetinaNet")\n', "two-stage"),
    "transformer": ('model = dict(type="DINO", bbox_head=dict(type="DINOHead"))\n', "two-stage"),
    "cascade": ('model = dict(type="CascadeRCNN")\n', "one fully connected RoI head"),
    "cascade head": ('model = dict(roi_head=dict(type="CascadeRoIHead"))\n', "model.roi_head is CascadeRoIHead"),
    "masks": ('model = dict(roi_head=dict(mask_head=dict(type="FCNMaskHead")))\n', "mask_head"),
    "another RPN": ('model = dict(rpn_head=dict(type="GARPNHead"))\n', "model.rpn_head is GARPNHead"),
    "no part": ("model = dict(rpn_head=None)\n", "model.rpn_head is no part with a type"),
    "line": ("model = dict(\n    neck=open('x'),\n)\n", "line 2"),
    "unknown field": ("model = dict()\nrecipe = dict(lr=0.1)\n", "lr"),
    "wrong type": ("model = dict()\nrecipe = dict(theta=2.0)\n", "theta"),
    "unknown constant": ("model = dict()\nrecipe = dict(semi=dict(weight=1.0))\n", "semi has no 'weight'"),
    "sides": ("model = dict()\nrecipe = dict(test_scale=(400, 800))\n", "larger one first"),
    "range": ("model = dict()\nrecipe = dict(train_shortest=(400, 300))\n", "400 is above 300"),
    "optimizer": ('model = dict()\nrecipe = dict(optimizer=dict(type="SGD"))\n', "an lr"),
    "flip": ('model = dict()\nrecipe = dict(flips=("sideways",))\n', "flips"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        detector_from_file(write(tmp_path, text))
    assert message in str(error.value)
    assert "mine.py" in str(error.value)


def test_a_missing_file_and_a_presets_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        get_detector(str(tmp_path / "missing.py"))
    file = tmp_path / "r50-fpn.py"
    file.write_text("model = dict()\n")
    with pytest.raises(UserError, match="preset's name"):
        get_detector(str(file))


def examples_of_the_page() -> list[str]:
    page = (Path(__file__).parents[3] / "docs" / "your-own-detector.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, re.S)


@pytest.mark.parametrize("text", examples_of_the_page())
def test_the_examples_of_the_page_are_read(tmp_path: Path, text: str) -> None:
    detector = detector_from_file(write(tmp_path, text if "model = " in text else f"model = dict()\n{text}"))
    if "recipe" in text:  # the page shows the defaults
        for name, value in PAPER.items():
            if name != "step_seconds":
                assert getattr(detector, name) == value, name
