"""Costs of a detector, against the arithmetic of its layers."""

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from cissod_bench.errors import UserError
from cissod_bench.leaderboard.comparable import comparable_run_sets
from cissod_bench.leaderboard.every_number import tidy_table
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import Costs, load_result, write_result
from cissod_bench.ssod.checkpoint_reading import load_checkpoint
from cissod_bench.training import costs as measuring
from cissod_bench.training.build_config import build_config
from cissod_bench.training.costs import detector_flops, latency_ms
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.runner import run_job
from tests.leaderboard.runs import make_record
from tests.tiny import tiny_job


def convolution(kernel: int, inputs: int, outputs: int, side: int) -> int:
    """Operations of a convolution with a square output; each multiply-add is two."""
    return 2 * kernel**2 * inputs * outputs * side**2


def small_flops(classes: int) -> int:
    """r18-small at 128 x 128, layer by layer: ResNet-18 of 16 to 128 channels, FPN of 48, RPN, and 100 RoIs."""
    total = convolution(7, 3, 16, 64)
    widths, sides = (16, 32, 64, 128), (32, 16, 8, 4)
    for stage, (width, side) in enumerate(zip(widths, sides, strict=True)):
        before = widths[max(stage - 1, 0)]
        total += convolution(3, before, width, side) + 3 * convolution(3, width, width, side)
        total += convolution(1, before, width, side) if before != width else 0
        total += convolution(1, width, 48, side) + convolution(3, 48, 48, side)  # FPN
        total += convolution(3, 48, 48, side) + convolution(1, 48, 1 + 4, side)  # RPN: one anchor at each place
    return total + 100 * 2 * (48 * 7 * 7 * 128 + 128 * 128 + 128 * (classes + 1) + 128 * 4)


def built(name: str, classes: int) -> Any:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(ConfigDict(get_detector(name).model(classes, 100)))


@pytest.mark.parametrize("classes", [1, 12])
def test_flops_are_those_of_the_layers(classes: int) -> None:
    detector = built("r18-small", classes)
    assert detector_flops(detector, (128, 128)) == small_flops(classes)


@pytest.mark.parametrize("name", ["r50-fpn", "swin-t-fpn", "mobilenet-v2-fpn"])
def test_other_backbones_are_counted_at_their_test_size(name: str) -> None:
    """Without computing: R50-FPN has about 0.2 T multiply-adds at 800 pixels in the literature, the others fewer."""
    flops = detector_flops(built(name, 80), (800, 1333))
    assert {"r50-fpn": 3.8e11, "swin-t-fpn": 3.8e11, "mobilenet-v2-fpn": 1e11}[name] < flops < 4.6e11


def test_a_run_records_its_costs(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run")
    found = run_job(job).costs
    assert found is not None
    state = load_checkpoint(job.out / "checkpoints" / "iter_4.pth")["state_dict"]
    # Group normalisation has no buffers: every tensor is a parameter.
    assert found.parameters == sum(value.numel() for name, value in state.items() if name.startswith("teacher."))
    assert found.flops == small_flops(12)
    assert found.image == (128, 128)
    assert 0 < found.latency_ms < 10_000
    assert found.device == "cpu, 1 thread"
    assert found.gpu_hours is None


class Model:
    """Counts the images that it is given."""

    def __init__(self) -> None:
        self.seen = 0

    def eval(self) -> None:
        pass

    def val_step(self, batch: object) -> None:
        self.seen += 1


def test_few_images_are_timed_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    ticks = iter([0.0, 9.0, *(value for index in range(9) for value in (10.0 * index, 10.0 * index + 0.001 * index))])
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(measuring, "SECONDS", 100.0)
    assert latency_ms(model, [{}] * 50) == pytest.approx(4.0)
    assert model.seen == 10


def test_slow_images_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    ticks = iter(range(0, 1000, 5))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(ticks))
    assert latency_ms(model, [{}] * 50) == 5000
    assert model.seen == 1


def test_random_numbers_are_as_before(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    original = measuring.run_costs

    def watched(*arguments: object) -> Costs:
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002
        found = original(*arguments)  # type: ignore[arg-type]
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002
        states.append(before == after)
        return found

    monkeypatch.setattr("cissod_bench.training.runner.run_costs", watched)
    run_job(tiny_job(tiny, tmp_path / "run"))
    assert states == [True]


def test_records_without_costs_load_and_negative_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, make_record())
    assert load_result(path).costs is None
    costs = Costs(parameters=1, flops=2, image=(3, 4), latency_ms=5.0, device="cpu", gpu_hours=0.5)
    write_result(path, msgspec.structs.replace(make_record(), costs=costs))
    assert load_result(path).costs == costs
    with pytest.raises(UserError, match="latency_ms"):
        write_result(
            path, msgspec.structs.replace(make_record(), costs=msgspec.structs.replace(costs, latency_ms=-1.0))
        )


def test_the_table_for_programs_has_means_over_seeds() -> None:
    records = []
    for seed, hours in ((0, 1.0), (1, 2.0), (2, None)):
        costs = None if hours is None else Costs(
            parameters=7, flops=8, image=(3, 4), latency_ms=hours, device="cpu", gpu_hours=hours
        )  # fmt: skip
        records.append(
            (Path(f"{seed}/result.json"), msgspec.structs.replace(make_record(train_seed=seed), costs=costs))
        )
    frame = tidy_table(comparable_run_sets(records)).to_frame()
    assert set(frame["parameters"]) == {7}
    assert set(frame["gpu_hours"]) == {1.5}
    assert set(frame["latency_ms"]) == {1.5}


def test_a_part_that_needs_values_costs_a_run_nothing_but_the_number(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_values(*_: object) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("cissod_bench.training.costs.detector_flops", needs_values)
    found = run_job(tiny_job(tiny, tmp_path / "run", iterations=1)).costs
    assert found is not None
    assert found.flops is None
    assert found.parameters > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_operations_of_every_method_are_counted(method: str, tiny: Path, tmp_path: Path) -> None:
    with DefaultScope.overwrite_default_scope("mmdet"):
        config = build_config(tiny_job(tiny, tmp_path / "run", method=method)).model.detector
        assert detector_flops(MODELS.build(config), (128, 128)) > 1e8
