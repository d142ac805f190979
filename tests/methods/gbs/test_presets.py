"""The release's values against the facts of methods.md sec. 2, and how they join what else is asked for."""

from dataclasses import replace

import pytest
import torch

from cissod_bench.errors import UserError
from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.methods.gbs.presets import PRESETS, preset_options
from cissod_bench.methods.registry import get_method
from cissod_bench.ssod.branch import branch
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.spec import RunSpec, choose_method
from tests.methods.gbs.test_ablations import CONTEXT

# Data set -> iterations, beta, threshold policy, first iteration of the weights and of the thresholds, generation.
RELEASE = {
    "coco": (180_000, 0.5, "gbt", 8_000, 12_000, 16_000),
    "objects365": (360_000, 0.8, "score", 12_000, 32_000, 36_000),
    "lvis": (180_000, 0.8, "score", 8_000, 16_000, 16_000),
}


@pytest.mark.parametrize("dataset", RELEASE)
def test_the_values_of_the_release(dataset: str) -> None:
    iterations, beta, policy, weights, thresholds, generation = RELEASE[dataset]
    gbs = get_method("gbs")
    parts = gbs.configure(replace(CONTEXT, iterations=iterations), gbs.options(preset_options("release", dataset)))
    assert parts.loss_cls["beta"] == beta
    assert parts.loss_cls["warmup"] == weights
    assert parts.loss_cls["gamma"] == 1.0
    assert parts.threshold["policy"] == policy
    assert parts.threshold["warmup"] == thresholds
    assert (parts.threshold["eta"], parts.threshold["cold_start"]) == (0.999, "count")
    (rebalancing,) = parts.hooks
    assert iterations / rebalancing["generations"] == pytest.approx(generation)
    assert rebalancing["count_only_pseudo"]


def test_one_update_an_iteration_forgets_as_much_as_the_releases_two() -> None:
    """Alternating updates with G_s = 1 and G_u = 2.8 settle at their average; ours at their sum, the scale of which no
    weight depends on, and both forget alike. The running mean that the release starts with is near it after 10 updates;
    ours, divided by its mass, is there from the first."""
    loss = GradientReweightedFocalLoss(
        3, unsup_weight=2.8, eta=preset_options("release", "coco")["eta_g"], warmup=10**6
    )
    logits, label = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4

    def gradient() -> float:
        return float(loss.matrix[1, 1])

    unit, mean, start = None, 0.0, {}
    for iteration in range(101):
        for one, kind in ((1.0, "sup"), (2.8, "unsup")):
            mean = (mean * iteration + one) / (iteration + 1)
            with branch(loss, kind):  # type: ignore[arg-type]
                loss(logits, label)
        loss.end_iteration(iteration)
        start[iteration] = mean
        unit = unit or gradient() / float(loss.mass) / 3.8
        assert gradient() / float(loss.mass) == pytest.approx(3.8 * unit, rel=1e-4)
    assert (start[10], start[100]) == (pytest.approx(1.982, abs=5e-4), pytest.approx(1.909, abs=5e-4))

    two = 1.0
    for _ in range(20_000):
        two = 0.999 * (0.999 * two + 0.001 * 1.0) + 0.001 * 2.8
    assert two == pytest.approx(1.900, abs=1e-3)
    before = gradient()
    for iteration in range(500):
        loss.end_iteration(iteration)  # nothing new
    assert gradient() / before == pytest.approx(0.999 ** (2 * 500), rel=1e-3)


@pytest.mark.parametrize(
    ("iterations", "burn_in", "mean_rate", "weights", "thresholds"),
    [(180_000, 0, 0.001, 8_000, 12_000), (60_000, 0, 0.003, 2_667, 4_000), (6_000, 3_000, 0.025, 267, 3_200)],
)
def test_defaults_by_the_length_of_the_run(
    iterations: int, burn_in: int, mean_rate: float, weights: int, thresholds: int
) -> None:
    gbs = get_method("gbs")
    parts = gbs.configure(replace(CONTEXT, iterations=iterations, burn_in=burn_in), gbs.options({}))
    assert parts.loss_cls["mean_rate"] == pytest.approx(mean_rate)
    assert parts.loss_cls["warmup"] == weights
    assert parts.threshold["warmup"] == parts.hooks[0]["warmup"] == thresholds


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_task_has_every_preset(preset: str, task: object) -> None:
    options = preset_options(preset, task.dataset)  # type: ignore[attr-defined]
    get_method("gbs").configure(CONTEXT, get_method("gbs").options(options))


def test_what_is_given_comes_before_the_ablation_and_that_before_the_preset() -> None:
    chosen = choose_method(RunSpec(task="lvis", method="gbs", options={"beta": "0.7"}, preset="release"))
    assert (chosen.method.name, chosen.label, chosen.changed_by_user()) == ("gbs", "gbs-release", {"beta": 0.7})
    assert (chosen.changed()["beta"], chosen.changed()["threshold"]) == (0.7, "score")
    chosen = choose_method(RunSpec(task="lvis", ablation="crs-gbt-gbr", preset="release"))
    assert (chosen.options["threshold"], chosen.options["beta"]) == ("gbt", 0.8)
    assert (chosen.label, chosen.changed_by_user()) == ("crs-gbt-gbr-release", {})


def test_an_unknown_preset_and_a_preset_of_another_method_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown preset 'releas'. Did you mean 'release'"):
        choose_method(RunSpec(task="coco-split1", method="gbs", preset="releas"))
    with pytest.raises(UserError, match="--preset release is for gbs; rfs has no presets"):
        choose_method(RunSpec(task="coco-split1", method="rfs", preset="release"))
