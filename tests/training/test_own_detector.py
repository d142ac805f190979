"""Detectors from files in whole runs: what is trained, recorded, resumed and refused."""

from pathlib import Path

import pytest
import torch

from cissod_bench.errors import UserError
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.run_key import comparison_key
from cissod_bench.training.build_config import build_config
from cissod_bench.training.preflight import check_parts
from cissod_bench.training.runner import run_job
from cissod_bench.training.trained.predict import load_predictor
from tests.tiny import final_state, interrupted, tiny_job

SMALL = """
strides = [4, 8, 16]
model = dict(
    backbone=dict(
        type="{backbone}",
        out_indices=(1, 2, 4),
        frozen_stages=-1,
        norm_cfg=dict(type="GN", num_groups=8),
        widen_factor=0.5,
    ),
    neck=dict(in_channels=[16, 16, 48], out_channels=32, num_outs=3),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(scales=[4], strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32, featmap_strides=strides),
        bbox_head=dict({head}in_channels=32, fc_out_channels=64),
    ),
)
recipe = dict(
    test_scale=(128, 128),
    train_shortest=(128, 128),
    padding=32,
    per_gpu=(2, 1),
    reference_gpus=1,
    optimizer=dict(type="AdamW", lr=1e-3),
    burn_in=0.5,
    semi=dict(pseudo_label_initial_score_thr=0.0),
)
"""


def write(folder: Path, backbone: str = "MobileNetV2", head: str = "") -> Path:
    file = folder / "small.py"
    file.write_text(SMALL.format(backbone=backbone, head=head))
    return file


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("", id="fc", marks=pytest.mark.slow),
        pytest.param('type="Shared4Conv1FCBBoxHead", conv_out_channels=16, ', id="conv-fc"),
    ],
)
def test_a_run_of_a_file_resumes_and_predicts(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    file = write(tmp_path, head=head)
    changes = {"method": "gbs", "detector": str(file)}
    job = tiny_job(tiny, tmp_path / "whole", **changes)
    check_parts(job)
    result = run_job(job)
    assert (result.key.detector, result.key.batch) == ("small", (2, 1))
    assert result.key.detector_digest
    assert (job.out / "detector.py").read_bytes() == file.read_bytes()
    assert result.files["detector"] == "detector.py"
    other = tiny_job(tiny, tmp_path / "other", **changes)
    interrupted(other, monkeypatch, after=3)
    run_job(other)
    expected, actual = final_state(job.out, 4), final_state(other.out, 4)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    file.unlink()
    assert len(load_predictor(job.out).categories) == 12


def test_another_content_is_another_detector(tiny: Path, tmp_path: Path) -> None:
    file = write(tmp_path)
    one = tiny_job(tiny, tmp_path / "run", detector=str(file))
    file.write_text(file.read_text().replace("lr=1e-3", "lr=2e-3"))
    other = tiny_job(tiny, tmp_path / "run", detector=str(file))
    assert comparison_key(one.key) != comparison_key(other.key)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_a_convolutional_box_head(tiny: Path, tmp_path: Path, method: str) -> None:
    file = write(tmp_path, head='type="Shared4Conv1FCBBoxHead", conv_out_channels=16, ')
    job = tiny_job(tiny, tmp_path / "run", method=method, detector=str(file))
    check_parts(job)
    head = build_config(job).model.detector.roi_head.bbox_head
    assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)


def test_what_mmdet_cannot_build_is_said(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", detector=str(write(tmp_path, backbone="MobileNetV9")))
    with pytest.raises(UserError, match=r"small.py: mmdet cannot build this detector \(KeyError: .*MobileNetV9"):
        check_parts(job)


def test_normalisation_that_collects_statistics_is_refused(tiny: Path, tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace('dict(type="GN", num_groups=8)', 'dict(type="BN")'))
    with pytest.raises(UserError, match=r"model.backbone.*batch normalisation that collects statistics"):
        check_parts(tiny_job(tiny, tmp_path / "run", detector=str(file)))


def test_weights_that_the_file_names_have_to_be_given(tiny: Path, tmp_path: Path) -> None:
    file = write(tmp_path)
    text = file.read_text().replace(
        "widen_factor=0.5", 'widen_factor=0.5, init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mobilenet_v2")'
    )
    file.write_text(text)
    with pytest.raises(UserError, match=r"needs weights \(open-mmlab://mobilenet_v2\). Give their file by --backbone"):
        tiny_job(tiny, tmp_path / "run", detector=str(file))
