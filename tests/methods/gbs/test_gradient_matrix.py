"""GbR's mathematics against autograd, exact null vectors, and numbers worked out independently."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from cissod_bench.methods.gbs.gradient_matrix import gradient_matrix, gradient_ratio, jacobi_targets, softmax_weights
from cissod_bench.methods.registry import get_method
from cissod_bench.methods.softmax_focal import softmax_focal
from tests.methods.plain import CONTEXT

INFINITE = {"lowest": 0.0, "highest": math.inf, "background_highest": math.inf}
TOY = torch.tensor([[-2, 1, 0.5], [1.5, -3, 0.5], [0.5, 2, -1]], dtype=torch.float64)


def by_autograd(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Eqs. (1) and (2) word by word: for each sample the derivative of its loss, added to the column of its class."""
    size = logits.shape[1]
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row, label, weight in zip(logits, labels, weights, strict=True):
        x = row.double().clone().requires_grad_()
        p = torch.softmax(x, 0)[label]
        loss = weight.double() * (1 - p) ** gamma * -torch.log(p)
        matrix[:, label] += torch.autograd.grad(loss, x)[0]
    return matrix


def samples(seed: int, count: int, size: int, classes: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, size, generator=generator, dtype=torch.float64)
    choice = torch.tensor(classes if classes is not None else list(range(size)))
    labels = choice[torch.randint(len(choice), (count,), generator=generator)]
    return logits, labels, torch.rand(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(
    "classes",
    [
        pytest.param(None, id="all classes"),
        pytest.param([0, 3, 6], id="classes absent"),
        pytest.param([6], id="all background"),
    ],
)
def test_closed_form_equals_autograd(gamma: float, classes: list[int] | None) -> None:
    logits, labels, weights = samples(0, 50, 7, classes)
    matrix = gradient_matrix(logits, labels, weights, gamma)
    torch.testing.assert_close(matrix, by_autograd(logits, labels, weights, gamma), rtol=0, atol=1e-10)
    assert matrix.sum(dim=0).abs().max() < 1e-12
    assert (matrix.diagonal() <= 0).all()
    assert (matrix - matrix.diagonal().diag() >= 0).all()
    for absent in set(range(7)) - set(labels.tolist()):
        assert not matrix[:, absent].any()


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_the_slope_equals_finite_differences(gamma: float) -> None:
    """dL/dx_t = -(1 - p) K(p), K(p) = (1 - p)^gamma - gamma p (1 - p)^(gamma - 1) log p, by Richardson."""

    def loss(x: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return (1 - p) ** gamma * -math.log(p)

    def central(x: float, step: float) -> float:
        return (loss(x + step) - loss(x - step)) / (2 * step)

    for logit in (-4.0, -1.0, 0.3, 2.0, 5.0):
        rows = [central(logit, step) for step in (0.02, 0.01, 0.005)]
        once = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(rows)]
        difference = (16 * once[1] - once[0]) / 15
        sample = torch.tensor([[logit, 0.0]], dtype=torch.float64)
        matrix = gradient_matrix(sample, torch.tensor([0]), torch.ones(1, dtype=torch.float64), gamma)
        assert float(matrix[0, 0]) == pytest.approx(difference, abs=1e-10)
        assert abs(float(matrix[:, 0].sum())) < 1e-14


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_samples_give_finite_gradients(gamma: float) -> None:
    """p_t so close to 1, and to 0, that 1 - p_t and p_t are 0 in float32."""
    logits = torch.tensor([[200.0, 0, 0], [0, 200.0, 0]])
    matrix = gradient_matrix(logits, torch.tensor([0, 0]), torch.ones(2), gamma)
    assert torch.isfinite(matrix).all()
    assert softmax_focal(logits, torch.tensor([0, 0]), gamma).isfinite().all()
    # The wrong sample has K(0) = 1 and pulls with weight 1 on the two classes that it confuses.
    torch.testing.assert_close(matrix[:, 0], torch.tensor([-1.0, 1.0, 0.0]))


def test_half_precision_logits_are_computed_in_single_precision() -> None:
    logits, labels, weights = samples(1, 30, 5)
    half = logits.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matrix = gradient_matrix(half, labels, weights, 1.0)
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix.double(), by_autograd(half, labels, weights, 1.0), rtol=1e-5, atol=1e-5)


def test_permuting_classes_or_samples_permutes_the_matrix() -> None:
    logits, labels, weights = samples(2, 40, 6)
    matrix = gradient_matrix(logits, labels, weights, 1.0)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    permuted = gradient_matrix(logits[:, order], place[labels], weights, 1.0)
    torch.testing.assert_close(permuted, matrix[order][:, order])
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(gradient_matrix(logits[shuffle], labels[shuffle], weights[shuffle], 1.0), matrix)


def null_vector(matrix: Tensor) -> Tensor:
    """The positive solution of eqs. (3) and (4): last row replaced by ones, as the paper says, in float64."""
    system = matrix.double().clone()
    system[-1] = 1.0
    right = torch.zeros(len(matrix), dtype=torch.float64)
    right[-1] = len(matrix)
    return torch.linalg.solve(system, right)


def test_the_balanced_weights_of_the_toy_matrix() -> None:
    exact = torch.tensor([0.727273, 0.636364, 1.636364], dtype=torch.float64)
    torch.testing.assert_close(null_vector(TOY), exact, rtol=0, atol=1e-6)
    targets = jacobi_targets(TOY, null_vector(TOY), torch.ones(3, dtype=torch.bool), **INFINITE)
    for scale in (1e-3, 1e-9, 1e-15):
        scaled = jacobi_targets(scale * TOY, null_vector(TOY), torch.ones(3, dtype=torch.bool), **INFINITE)
        torch.testing.assert_close(scaled, targets)
    torch.testing.assert_close(targets, null_vector(TOY), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient_ratio(TOY, null_vector(TOY)), torch.ones(3, dtype=torch.float64))


def learn(matrix: Tensor, rho: float, steps: int, unseen: Sequence[int] = ()) -> Tensor:
    logits = torch.zeros(len(matrix), dtype=torch.float64)
    seen = torch.ones(len(matrix), dtype=torch.bool)
    seen[list(unseen)] = False
    for _ in range(steps):
        logits = logits + rho * (jacobi_targets(matrix, softmax_weights(logits, seen), seen).log() - logits)
    return softmax_weights(logits, seen)


def long_tailed(size: int, background: float, seed: int) -> tuple[Tensor, Tensor]:
    """A matrix with zero column sums, and the weights that balance it, which it is made from.

    Balance means that class i gives to k what k gives to i: a symmetric flow F, G_ik = F_ik / w_k. Flows between
    classes and with the background follow frequencies from 0.1 to 1e-4.
    """
    generator = np.random.default_rng(seed)
    frequency = np.geomspace(0.1, 1e-4, size - 1)
    exact = generator.uniform(0.5, 2, size)
    exact[-1] = background
    exact[:-1] *= (size - background) / exact[:-1].sum()
    flow = np.zeros((size, size))
    flow[:-1, -1] = flow[-1, :-1] = frequency * exact[:-1]
    between = np.triu(np.outer(frequency, frequency) / frequency.sum(), 1)
    flow[:-1, :-1] = between + between.T
    matrix = flow / exact[None, :]
    return torch.tensor(matrix - np.diag(matrix.sum(axis=0))), torch.tensor(exact)


@pytest.mark.parametrize("size", [4, 21, 81, 366, 1204])
@pytest.mark.parametrize("background", [0.6, 0.9])
def test_the_learned_weights_converge_to_the_exact_null_vector(size: int, background: float) -> None:
    matrix, exact = long_tailed(size, background, seed=size)
    torch.testing.assert_close(null_vector(matrix), exact, rtol=1e-8, atol=0)
    rho = min(0.05, 1 / size)
    torch.testing.assert_close(learn(matrix, rho, math.ceil(9 / rho)), exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize("size", [4, 21, 81, 366])
def test_random_matrices_too(size: int) -> None:
    """Entries at random, as many background samples as bring its weight into the bounds, the answer by solving."""
    generator = torch.Generator().manual_seed(size)
    matrix = torch.rand(size, size, generator=generator, dtype=torch.float64) + 0.1
    matrix = (matrix - matrix.diagonal().diag()) * (0.5 + torch.rand(size, generator=generator, dtype=torch.float64))
    matrix = matrix - matrix.sum(dim=0).diag()
    matrix[:, -1] *= null_vector(matrix)[-1] / 0.6
    exact = null_vector(matrix)
    assert exact.min() > 1 / 3
    assert exact[-1] < 1 < exact.max() < 5
    rho = min(0.05, 1 / size)
    torch.testing.assert_close(learn(matrix, rho, math.ceil(25 / rho)), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [13, 81])
def test_and_to_machine_precision(size: int) -> None:
    matrix, exact = long_tailed(size, 0.6, seed=1)
    rho = min(0.05, 1 / size)
    torch.testing.assert_close(learn(matrix, rho, math.ceil(40 / rho)), exact, rtol=1e-12, atol=0)


def test_a_step_above_the_stability_bound_cycles() -> None:
    """The background's target is n + 1 minus the rest, so its slope is -(n + 1 - w) / w, and rho has to stay below
    2 w / (n + 1).

    This is why rho is 1 / (n + 1) by default, and not longer in shorter runs. A background weight below 1/2 is beyond
    the bound with it too; what that costs is far below what a batch's noise moves.
    """
    matrix, exact = long_tailed(81, 0.6, seed=1)
    above = learn(matrix, 0.05, 2000)
    assert 1e-3 < (above / exact - 1).abs().max() < 0.1
    for size, most in ((21, 0.02), (81, 5e-3), (366, 1e-3)):
        matrix, exact = long_tailed(size, 0.4, seed=1)
        apart = (learn(matrix, min(0.05, 1 / size), 30 * size) / exact - 1).abs()
        assert apart[-1] < most
        assert apart[:-1].max() < 1e-3


def test_ratios_of_positive_to_negative_gradients_go_to_one() -> None:
    matrix, _ = long_tailed(21, 0.6, seed=0)
    before = gradient_ratio(matrix, torch.ones(21, dtype=torch.float64))
    assert before.max() > 1.33
    assert before.min() < 0.6
    after = gradient_ratio(matrix, learn(matrix, 1 / 21, 1000))
    torch.testing.assert_close(after, torch.ones(21, dtype=torch.float64), rtol=1e-9, atol=0)


def test_ratios_of_seen_classes_go_to_one_beside_classes_never_seen() -> None:
    """They settled at (n + 1) / (n + 1 + 5 u) or so for u of these, 0.67 in short runs, while they took a share."""
    matrix, _ = long_tailed(21, 0.6, seed=0)
    unseen = [3, 19]
    matrix[:, unseen] = 0.0  # no samples; the others' samples still lower their logits
    weights = learn(matrix, 1 / 21, 1000, unseen)
    seen = [label for label in range(20) if label not in unseen]
    ratios = gradient_ratio(matrix, weights)[seen]
    torch.testing.assert_close(ratios, torch.ones(18, dtype=torch.float64), rtol=1e-6, atol=0)
    assert weights[unseen].tolist() == [5.0, 5.0]
    assert float(weights[[*seen, 20]].sum()) == pytest.approx(21.0)


def test_targets_against_a_loop_with_clamps_and_an_unseen_class() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, labels, weights = samples(4, 60, 6, [0, 1, 3, 5])
    matrix = gradient_matrix(logits, labels, weights, 1.0)
    current = torch.rand(6, generator=generator, dtype=torch.float64) * 2
    expected, total = [], 6.0
    for i in range(5):
        if matrix[i, i] == 0:
            expected.append(5.0)
            continue
        target = -sum(float(current[k] * matrix[i, k]) for k in range(6) if k != i) / float(matrix[i, i])
        total -= target
        expected.append(min(max(target, 1 / 3), 5.0))
    expected.append(min(max(total, 1 / 3), 1.0))
    seen = torch.tensor([True, True, False, True, False, True])
    torch.testing.assert_close(jacobi_targets(matrix, current, seen), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("num_classes", [80, 365, 1203])
def test_time_constant_of_the_release(num_classes: int) -> None:
    """SGD with momentum 0.9 and lr 0.01 on 5 * mean (log T - a)^2 moves a as fast as the default step of ours."""
    gbs = get_method("gbs")
    loss = gbs.configure(dataclasses.replace(CONTEXT, num_classes=num_classes), gbs.options({})).loss_cls
    a, velocity, steps = 1.0, 0.0, 0
    while a > math.exp(-1):
        velocity = 0.9 * velocity + 2 * 5 / (num_classes + 1) * a
        a -= 0.01 * velocity
        steps += 1
    ours, taken = 1.0, 0
    while ours > math.exp(-1):
        ours -= loss["rho"] * ours
        taken += 1
    assert taken == pytest.approx(steps, rel=0.02)


def toy_of_the_specification() -> tuple[Tensor, Tensor]:
    """Frequencies of 20 classes and the background, and G of samples with these scores (rows: samples of a class).

    The specification (2.6) gives the frequencies and what comes out, and not what is taken for what. Here samples have
    0.261 for their own class (background 0.833), a foreground one gives 0.265 of the rest to the background, and what
    is left goes to the others by a power of their frequency, with which all four of its numbers hold.
    """
    frequency = torch.from_numpy(np.append(np.geomspace(0.1, 1e-4, 20), 0.67))
    frequency = frequency / frequency.sum()
    scores = torch.zeros(21, 21, dtype=torch.float64)
    for label in range(21):
        own, to_background, power = (0.833, 0.0, 0.386) if label == 20 else (0.261, 0.265, 1.214)
        others = frequency[:20] ** power
        others[label : label + 1] = 0
        scores[label, :20] = (1 - own) * (1 - to_background) * others / others.sum()
        scores[label, 20] = (1 - own) * to_background
        scores[label, label] = own
    return frequency, gradient_matrix(scores.log(), torch.arange(21), frequency, 1.0)


def test_the_numbers_of_the_long_tailed_toy() -> None:
    """Ratios of 1.33 to 0.22 go to 1; then the mean weight of a sample is 0.64, and 0.79 with beta = 0.5."""
    frequency, matrix = toy_of_the_specification()
    before = gradient_ratio(matrix, torch.ones(21, dtype=torch.float64))
    assert float(before.max()) == pytest.approx(1.33, abs=0.01)
    assert float(before.min()) == pytest.approx(0.22, abs=0.005)
    weights = learn(matrix, 1 / 21, 2000)
    exact = null_vector(matrix)
    assert float((frequency * exact).sum()) == pytest.approx(0.64, abs=0.005)
    assert float((frequency * exact**0.5).sum()) == pytest.approx(0.79, abs=0.005)
    # Within a hundredth: the weight of the most frequent class is 0.330, just below the bound of 1/3.
    torch.testing.assert_close(weights, exact, rtol=0.011, atol=0)
    torch.testing.assert_close(gradient_ratio(matrix, weights), torch.ones(21, dtype=torch.float64), rtol=0, atol=0.01)
