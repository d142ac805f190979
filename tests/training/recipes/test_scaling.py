"""The scaling rules against their definitions, and what they refuse."""

import math
from pathlib import Path

import pytest

from cissod_bench.errors import UserError
from cissod_bench.training.build_config import build_config
from cissod_bench.training.recipes.scaling import scaled_length, scaled_momentum, scaled_optimizer
from cissod_bench.training.run_plan import plan, plan_lines
from tests.tiny import tiny_job


def test_sgd_scales_linearly_and_says_where_that_ends() -> None:
    recipe = {"type": "SGD", "lr": 0.01, "momentum": 0.9}
    assert scaled_optimizer(recipe, 4.0) == {"type": "SGD", "lr": 0.04, "momentum": 0.9}
    assert scaled_optimizer(recipe, 1.0) == recipe
    assert scaled_optimizer(recipe, 16.0)["lr"] == pytest.approx(0.16)
    with pytest.raises(UserError, match=r"17 times as many images.*known to hold up to 16 times"):
        scaled_optimizer(recipe, 17.0)


def test_adamw_scales_with_the_square_root_and_its_betas_with_it() -> None:
    scaled = scaled_optimizer({"type": "AdamW", "lr": 1e-3}, 4.0)
    assert (scaled["lr"], scaled["eps"]) == pytest.approx((2e-3, 5e-9))
    assert scaled["betas"] == pytest.approx((0.6, 0.996))
    with pytest.raises(UserError, match="square root scaling rule of AdamW"):
        scaled_optimizer({"type": "AdamW", "lr": 1e-3}, 10.0)
    with pytest.raises(UserError, match="No scaling rule is known for LARS"):
        scaled_optimizer({"type": "LARS", "lr": 1e-3}, 2.0)


@pytest.mark.parametrize("k", [0.125, 0.5, 2, 3, 8])
def test_lengths_and_memories_stay_the_same_in_images(k: float) -> None:
    length = scaled_length(180_000, k)
    assert 0 <= length * k - 180_000 < k
    # A teacher's weight of k steps ago, seen as many images ago as one step of the recipe.
    assert math.isclose(1 - scaled_momentum(0.001, k), (1 - 0.001) ** k)


def test_one_gpu_sees_as_many_images_as_eight(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", detector="r50-fpn", schedule="paper", iterations=None, gpus=1)
    assert (job.iterations, job.key.shortened) == (320, False)  # the tiny task has 40 iterations of 8 x 5 images
    text = "\n".join(plan_lines(job))
    assert "320 iterations (paper, full length 40 for 40 images a step, 320 for 5)" in text
    config = build_config(job)
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.01 / 8)
    assert config.param_scheduler[1].milestones == [240, 288]
    (teacher,) = [hook for hook in config.custom_hooks if hook["type"].endswith(".TeacherStudentHook")]
    assert teacher["momentum"] == pytest.approx(0.001 / 8, rel=1e-3)


def test_the_paper_recipe_is_left_as_it_is_on_eight_gpus(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", detector="r50-fpn", schedule="paper", iterations=None, gpus=8)
    assert job.batch == (8, 32)
    config = build_config(job)
    assert (job.iterations, config.optim_wrapper.optimizer.lr) == (40, 0.01)
    (teacher,) = [hook for hook in config.custom_hooks if hook["type"].endswith(".TeacherStudentHook")]
    assert teacher["momentum"] == 0.001


def test_two_processes_of_the_small_preset(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", schedule="paper", iterations=None, gpus=2)
    assert (job.batch, job.iterations) == ((8, 4), 20)
    assert plan(job)["learning_rate"] == pytest.approx(1e-3 * math.sqrt(2))
    text = "\n".join(plan_lines(job))
    assert "0.00141421 for 12 images a step (0.001 for 6, scaled with the square root)" in text
    assert "CPU, 2 processes with 1 thread each" in text


def test_more_labelled_images_a_step_than_there_are_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"A batch takes 36 labelled images, but .* has \d+"):
        tiny_job(tiny, tmp_path / "run", gpus=9)
