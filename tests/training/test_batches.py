"""Batches of another size, and several batches that make one step, against what they have to equal."""

from pathlib import Path

import pytest
import torch

from cissod_bench.errors import UserError
from cissod_bench.results.run_key import comparison_key
from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper
from cissod_bench.training.build_config import build_config
from cissod_bench.training.run_plan import plan, plan_lines
from cissod_bench.training.runner import run_job
from tests.tiny import final_state, interrupted, tiny_job


def test_gradients_of_several_batches_are_averaged() -> None:
    """Against one step of SGD with the mean of the gradients, by hand."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    wrapper = MixedPrecisionOptimWrapper("fp32", "cpu", optimizer=torch.optim.SGD([weight], lr=0.5),
                                         accumulative_counts=3)  # fmt: skip
    wrapper.initialize_count_status(torch.nn.Linear(1, 1), 0, 6)
    factors = [torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]), torch.tensor([-1.0, 4.5])]
    for place, factor in enumerate(factors):
        assert torch.equal(weight, torch.tensor([1.0, 2.0])), f"unchanged before batch {place}"
        wrapper.update_params((weight * factor).sum())
    assert torch.allclose(weight, torch.tensor([1.0, 2.0]) - 0.5 * torch.tensor([1.0, 1.0]))


def test_steps_are_the_same_however_they_come_about(tiny: Path, tmp_path: Path) -> None:
    """4 + 2 images in one batch, or 2 + 1 in two: one key, one learning rate, one length."""
    one = tiny_job(tiny, tmp_path / "one", iterations=20)
    two = tiny_job(tiny, tmp_path / "two", iterations=20, batch="2+1", accumulate=2)
    assert comparison_key(one.key) == comparison_key(two.key)
    first, second = plan(one), plan(two)
    for name in ("iterations", "learning_rate", "learning_rate_steps", "batch", "full_iterations"):
        assert first[name] == second[name], name
    config = build_config(two)
    assert config.train_cfg.max_iters == 40
    assert config.train_cfg.val_interval % 2 == 0
    assert config.default_hooks.checkpoint.interval % 2 == 0
    assert "summed up over 2 batches" in "\n".join(plan_lines(two))


def test_one_gpu_reaches_the_papers_step(tiny: Path, tmp_path: Path) -> None:
    """Goyal et al.: the rate follows the images in a step, the length their inverse."""
    job = tiny_job(tiny, tmp_path / "run", detector="r50-fpn", iterations=None, schedule="paper", accumulate=8)
    assert job.key.batch == (8, 32)
    assert (job.key.iterations, job.iterations, job.learning_rate) == (40, 320, 0.01)
    small = tiny_job(tiny, tmp_path / "run", detector="r50-fpn", iterations=None, schedule="paper", batch="2+8")
    assert (small.key.batch, small.key.iterations, small.learning_rate) == ((2, 8), 160, 0.0025)


def test_a_run_with_several_batches_in_a_step_resumes_exactly(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    changes = {"method": "gbs", "iterations": 3, "batch": "2+1", "accumulate": 2}
    whole, other = tiny_job(tiny, tmp_path / "whole", **changes), tiny_job(tiny, tmp_path / "other", **changes)
    result = run_job(whole)
    assert not [each for each in recwarn if "before `optimizer.step()`" in str(each.message)]
    assert (result.key.iterations, result.key.accumulate, result.key.batch) == (3, 2, (4, 2))
    interrupted(other, monkeypatch, after=4)
    run_job(other)
    expected, actual = final_state(whole.out, 6), final_state(other.out, 6)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize("batch", ["4x8", "0+4", "4", "4+", "-1+2", "1+4+2"])
def test_other_batches_are_refused(tiny: Path, tmp_path: Path, batch: str) -> None:
    with pytest.raises(UserError, match=r"write the numbers of labelled images, at least 1, and unlabelled"):
        tiny_job(tiny, tmp_path / "run", batch=batch)
