"""A teacher inference pass against the test loop of single images, and that it leaves no trace."""

import json
import os
import random
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from cissod_bench.baselines.crest import self_training
from cissod_bench.errors import Stopped
from cissod_bench.splits.folder import load_split
from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes
from cissod_bench.ssod.hooks.checkpoints import checkpoints
from cissod_bench.ssod.hooks.progress import ProgressHook
from cissod_bench.ssod.teacher_inference import _TestImages, detect_unlabeled
from cissod_bench.training import build_config as config
from cissod_bench.training import data_config as data
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.runner import run_job
from tests.ssod.models import teacher_student
from tests.tiny import final_state, tiny_job

PIPELINE = data.test_pipeline(get_detector("r18-small"))


def images(tiny: Path, annotations: Path, pipeline: list[dict[str, Any]], test: bool) -> Any:
    classes = load_split(tiny / "split").class_names
    return DATASETS.build(data.dataset(annotations, tiny / "train", classes, pipeline, test=test))


def run_of(model: nn.Module, tiny: Path, batch_size: int = 4, workers: int = 0) -> Any:
    """As much of a run as an inference pass asks for."""
    annotations = load_split(tiny / "split").unlabeled_file
    unlabeled = images(tiny, annotations, data.unlabeled_pipeline(get_detector("r18-small")), test=False)
    return SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=SimpleNamespace(datasets=[None, unlabeled]), num_workers=workers),
        cfg=Config({"val_dataloader": {"batch_size": batch_size, "dataset": {"pipeline": PIPELINE}}}),
        call_hook=lambda name, **_: None,
    )


def assert_equal(one: PseudoBoxes, other: PseudoBoxes) -> None:
    for mine, theirs in zip(one.columns(), other.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_a_sweep_finds_what_the_teacher_finds_at_test_time(tiny: Path) -> None:
    model = teacher_student()
    unlabeled = load_split(tiny / "split").unlabeled_file
    expected = []
    for item in images(tiny, unlabeled, PIPELINE, test=True):
        batch = {name: [value] for name, value in item.items()}
        found = model.test_step(batch)[0].pred_instances
        expected.append(found[found.scores > 0.13])
    assert sum(len(found) for found in expected) > 0
    for batch_size in (1, 4):
        actual = detect_unlabeled(run_of(model, tiny, batch_size), 0.13)
        assert len(actual) == sum(len(found) for found in expected)
        assert (np.diff(actual.image) >= 0).all()
        for position, found in enumerate(expected):
            mine = actual.rows(actual.image == position)
            np.testing.assert_array_equal(mine.label, found.labels)
            np.testing.assert_allclose(mine.box, found.bboxes, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(mine.score, found.scores, rtol=1e-4)
            assert (np.diff(mine.score) <= 0).all()


def test_a_sweep_leaves_no_trace(tiny: Path) -> None:
    model = teacher_student()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    seeds = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    detect_unlabeled(run_of(model, tiny), 0.13)
    assert seeds == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.view is None


def test_the_number_of_workers_changes_nothing(tiny: Path) -> None:
    model = teacher_student()
    assert_equal(detect_unlabeled(run_of(model, tiny), 0.13), detect_unlabeled(run_of(model, tiny, workers=2), 0.13))


def test_the_teacher_never_sees_an_annotation(tiny: Path) -> None:
    """Also where a data set of unlabelled images comes with some."""
    source = images(tiny, tiny / "train.json", PIPELINE, test=False)
    assert source.get_data_info(0)["instances"]
    sample = _TestImages(source, PIPELINE)[0]["data_samples"]
    assert len(sample.gt_instances) == 0
    assert not any("bbox" in str(name) or "instances" in str(name) for name in sample.metainfo_keys())


def test_nothing_is_found_in_a_damaged_image(tiny: Path, tmp_path: Path) -> None:
    """Everything else is as without it, also where a batch holds damaged images alone."""
    model = teacher_student()
    before = detect_unlabeled(run_of(model, tiny, batch_size=2), 0.13)
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    names = [image["file_name"] for image in json.loads((tiny / "split" / "unlabeled.json").read_text())["images"]]
    for position in (0, 1, 4):
        file = folder / "train" / names[position]
        file.write_bytes(file.read_bytes()[:60])
    noted: list[str] = []
    run = run_of(model, folder, batch_size=2, workers=1)
    run.call_hook = lambda name, damaged=(), **_: noted.extend(damaged)
    found = detect_unlabeled(run, 0.13)
    expected = before.rows(~np.isin(before.image, (0, 1, 4)))
    assert 0 < len(expected) < len(before)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_allclose(found.box, expected.box, rtol=1e-4, atol=1e-3)  # a batch of one is rounded otherwise
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    assert noted == [f"{folder / 'train' / names[position]}: the file is cut off." for position in (0, 1, 4)]


def test_a_signal_stops_within_a_look_and_the_run_goes_on_exactly(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second of three passes; what is found in them decides what the last iteration learns."""
    monkeypatch.setattr(self_training, "READ_AHEAD", 2)
    monkeypatch.setattr(config, "checkpoint_interval", lambda job: 4)
    options = {"generations": 4, "theta": 0.06, "threshold": 0.05}
    whole, stopped = (
        tiny_job(tiny, tmp_path / name, method="crest", iterations=8, options=options) for name in ("whole", "stopped")
    )
    run_job(whole)
    seen: list[tuple[int, int]] = []

    def after_inference_batch(self: ProgressHook, runner: Any, done: int, damaged: list[str]) -> None:
        seen.append((runner.iter + 1, done))
        if seen[-1] == (6, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressHook, "after_inference_batch", after_inference_batch)
        with pytest.raises(
            Stopped, match=r"inference pass after iteration 6. Run the same command again to resume from .*iter_4.pth"
        ) as error:
            run_job(stopped)
    assert error.value.exit_code == 128 + signal.SIGTERM
    assert seen[-1] == (6, 1), "the next batch is the last"
    assert (5, 2) in seen
    assert [path.name for path in checkpoints(stopped.out / "checkpoints")] == ["iter_4.pth"]
    run_job(stopped)
    expected, actual = final_state(whole.out, 8), final_state(stopped.out, 8)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    assert (stopped.out / "observables.jsonl").read_text() == (whole.out / "observables.jsonl").read_text()


def test_tables_join_by_image_and_keep_the_order_within() -> None:
    parts = [
        PseudoBoxes(
            np.array(image, "i4"), np.array(label, "i2"), np.zeros((len(image), 4), "f4"), np.ones(len(image), "f4")
        )
        for image, label in (([2, 2, 5], [0, 1, 2]), ([], []), ([0, 4], [3, 4]))
    ]
    joined = PseudoBoxes.joined(parts)
    assert joined.image.tolist() == [0, 2, 2, 4, 5]
    assert joined.label.tolist() == [3, 0, 1, 4, 2]
    assert [joined.of(image) for image in (2, 3)] == [slice(1, 3), slice(3, 3)]
    assert len(PseudoBoxes.joined([])) == 0


@pytest.mark.parametrize("column", range(4))
def test_an_empty_table_has_the_types_of_a_full_one(column: int) -> None:
    full = PseudoBoxes(np.zeros(1, "i4"), np.zeros(1, "i2"), np.zeros((1, 4), "f4"), np.zeros(1, "f4"))
    assert PseudoBoxes.joined([]).columns()[column].dtype == full.columns()[column].dtype
