"""Supervised training: no unlabelled image is needed, and a step is the labelled part of Soft Teacher's."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from cissod_bench.errors import UserError
from cissod_bench.results.run_key import comparison_key
from cissod_bench.ssod.data import damaged
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job
from cissod_bench.training.run_plan import cost, plan_lines
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


def names_of(file: Path) -> set[str]:
    """The file names of the images in a COCO file."""
    return {image["file_name"] for image in json.loads(file.read_text())["images"]}


def test_no_unlabelled_image_is_opened_or_missed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all unlabelled images gone from the disk; other methods refuse such data."""
    shutil.copytree(tiny, tmp_path / "data")
    for name in names_of(tmp_path / "data" / "split" / "unlabeled.json"):
        (tmp_path / "data" / "train" / name).unlink()
    with pytest.raises(UserError, match=r"lacks 24 of 24 images of .*unlabeled\.json"):
        tiny_job(tmp_path / "data", tmp_path / "run")

    opened: Counter[str] = Counter()
    original = damaged.LoadWholeImage.__call__

    def note(self: Any, results: dict[str, Any]) -> dict[str, Any]:
        opened[Path(results["img_path"]).parent.name] += 1
        return original(self, results)

    monkeypatch.setattr(damaged.LoadWholeImage, "__call__", note)
    result = run_job(tiny_job(tmp_path / "data", tmp_path / "run", method="supervised"))
    assert opened["train"] == 4 * 4, "four labelled images a step, as with unlabelled ones"
    assert result.key.method == "supervised"


def model_and_batch(job: Job) -> tuple[Any, Any]:
    """The model of a job with fixed weights, after its burn-in, and the first batch of its loader."""
    config = build_config(job)
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    model.iteration = job.iterations
    return model.train(), batch


def losses(model: Any, batch: Any) -> dict[str, float]:
    torch.manual_seed(1)
    data = model.data_preprocessor(batch, True)
    _, found = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
    return {name: float(value.detach()) for name, value in found.items()}


def test_a_step_is_the_labelled_part_of_soft_teachers(tiny: Path, tmp_path: Path) -> None:
    model, batch = model_and_batch(tiny_job(tiny, tmp_path / "teacher"))
    alone, own = model_and_batch(tiny_job(tiny, tmp_path / "supervised", method="supervised"))
    assert list(own["data_samples"]) == ["sup"]
    assert len(own["data_samples"]["sup"]) == sum(each is not None for each in batch["data_samples"]["sup"]) == 4
    labelled = {key: {"sup": [each for each in branches["sup"] if each is not None]} for key, branches in batch.items()}
    both, one = losses(model, batch), losses(alone, labelled)
    assert any(name.startswith("unsup_") for name in both), "the comparison would say nothing"
    supervised = {name: value for name, value in both.items() if name.startswith("sup_")}
    assert one == {**supervised, "loss": one["loss"]}
    assert one["loss"] == pytest.approx(sum(value for name, value in supervised.items() if "loss" in name))


def test_every_labelled_image_comes_up_once_before_any_comes_up_again(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", method="supervised")
    with DefaultScope.overwrite_default_scope("mmdet"):
        loader = Runner.build_dataloader(build_config(job).train_dataloader, seed=0)
    sampler, labeled = loader.sampler, job.split.counts["labeled_images"]
    draws = iter(sampler)
    assert len(sampler) == labeled > 4
    for _ in range(3):
        assert sorted(int(next(draws)) % labeled for _ in range(labeled)) == list(range(labeled))


def test_it_is_comparable_with_the_others_and_says_what_a_step_is(tiny: Path, tmp_path: Path) -> None:
    job, other = tiny_job(tiny, tmp_path / "run", method="supervised"), tiny_job(tiny, tmp_path / "other")
    assert comparison_key(job.key) == comparison_key(other.key)
    assert (job.batch, other.batch) == ((4, 0), (4, 2))
    assert job.learning_rate == other.learning_rate
    assert "4 images a step: 4 labelled + 0 unlabelled" in "\n".join(plan_lines(job))
    assert cost(other) == 1
    assert cost(job) == pytest.approx(4 / (4 + 2 * 4 / 3))
