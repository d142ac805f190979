"""Every method takes two steps, one of them with pseudo labels, on every preset that starts from ImageNet."""

import dataclasses
from pathlib import Path

import pytest

from cissod_bench.methods.registry import METHODS
from cissod_bench.training.recipes import detectors
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50-fpn", "r101-fpn", "swin-t-fpn", "mobilenet-v2-fpn"])
@pytest.mark.parametrize("method", METHODS)
def test_steps_on_small_images(
    name: str, method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(
        detectors.get_detector(name), test_scale=(128, 96), train_shortest=(64, 96), padding=32, burn_in=0.5
    )
    monkeypatch.setitem(detectors.DETECTORS, name, small)
    changes = {"detector": name, "iterations": 2, "batch": "1+1"}
    result = run_job(tiny_job(tiny, tmp_path / "run", method=method, **changes))
    assert result.key.detector == name
    assert set(result.metrics) == {"all", "maj", "min"}
