"""GbR's loss and state against a naive float64 implementation, over several stateful iterations."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.ssod.branch import branch
from tests.methods.gbs.test_gradient_matrix import by_autograd

N = 5


class Naive:
    """Paper sec. 3.2 and its options in loops and float64."""

    def __init__(self, **options: Any) -> None:
        self.options = {"gamma": 1.0, "beta": 0.5, "unsup_weight": 4.0, "eta": 0.9, "rho": 0.05, "warmup": 1, **options}
        self.matrix = torch.zeros(N + 1, N + 1, dtype=torch.float64)
        self.mass, self.mean = 0.0, 1.0
        self.seen: set[int] = set()
        self.a, self.w = [0.0] * (N + 1), [1.0] * (N + 1)
        self.pending: list[tuple[Tensor, float]] = []
        self.call_means: list[float] = []

    def loss(self, logits: Tensor, labels: Tensor, weights: Tensor, kind: str, avg_factor: float) -> float:
        total, sample_weights = 0.0, []
        power = self.options["beta"] if kind == "sup" else 1.0
        for row, label, weight in zip(logits.double(), labels, weights.double(), strict=True):
            p = float(torch.softmax(row, 0)[label])
            sample = min(max(self.w[label], 1 / 3), 5.0) ** power
            sample_weights.append(sample)
            total += sample / self.mean * float(weight) * (1 - p) ** self.options["gamma"] * -math.log(p)
        self.call_means.append(sum(sample_weights) / len(sample_weights))
        count = float((weights > 0).sum()) if kind == "sup" else float(weights.sum())
        scale = 1.0 if kind == "sup" else self.options["unsup_weight"]
        matrix = by_autograd(logits, labels, weights, self.options["gamma"])
        self.seen |= {int(label) for label, weight in zip(labels, weights, strict=True) if weight > 0}
        self.pending.append((scale * matrix / max(count, 1.0), count))
        return total / avg_factor

    def end(self, iteration: int) -> None:
        eta = self.options["eta"]
        self.matrix = eta * self.matrix + (1 - eta) * sum(matrix for matrix, _ in self.pending)
        self.mass = eta * self.mass + 1 - eta
        for mean in self.call_means:  # one step each, as in the release
            self.mean += 0.001 * (mean - self.mean)
        self.pending, self.call_means = [], []
        if iteration < self.options["warmup"]:
            return
        average = self.matrix / self.mass
        targets, rest = [], N + 1.0
        for i in range(N):
            if i not in self.seen:
                targets.append(5.0)
                continue
            target = sum(self.w[k] * float(average[i, k]) for k in range(N + 1) if k != i) / -float(average[i, i])
            rest -= target
            targets.append(min(max(target, 1 / 3), 5.0))
        targets.append(min(max(rest, 1 / 3), 1.0))
        self.a = [a + self.options["rho"] * (math.log(t) - a) for a, t in zip(self.a, targets, strict=True)]
        counted = {*self.seen, N}  # a class without gradients takes no share
        total = sum(math.exp(self.a[i]) for i in counted)
        self.w = [(N + 1) * math.exp(a) / total if i in counted else 5.0 for i, a in enumerate(self.a)]


def a_batch(seed: int, count: int = 40, labels: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    choice = torch.tensor(labels or [0, 1, 3, 5, 5, 5])  # 2 and 4 absent
    label = choice[torch.randint(len(choice), (count,), generator=generator)]
    weight = torch.rand(count, generator=generator)
    weight[label < N] = 1.0
    return 2 * torch.randn(count, N + 1, generator=generator), label, weight


def module(**options: Any) -> GradientReweightedFocalLoss:
    return GradientReweightedFocalLoss(N, **{"eta": 0.9, "rho": 0.05, "warmup": 1, **options})


@pytest.mark.parametrize("options", [{}, {"gamma": 2.0}, {"gamma": 0.0, "beta": 0.8}, {"unsup_weight": 1.0}])
def test_values_and_state_over_iterations(options: dict[str, Any]) -> None:
    loss, naive = module(**options), Naive(**options)
    for iteration in range(12):
        # Iteration 3 has background only, iteration 5 no pseudo-label pass.
        sup = a_batch(iteration, labels=[5] if iteration == 3 else None)
        unsup = a_batch(100 + iteration, labels=[5] if iteration == 3 else None)
        with branch(loss, "sup"):
            actual = loss(*sup, avg_factor=40.0)
        assert float(actual) == pytest.approx(naive.loss(*sup, "sup", 40.0), rel=1e-5)
        if iteration != 5:
            factor = unsup[2].sum().clamp(min=1.0)
            with branch(loss, "unsup"):
                actual = loss(*unsup, avg_factor=factor)
            assert float(actual) == pytest.approx(naive.loss(*unsup, "unsup", float(factor)), rel=1e-5)
        loss.end_iteration(iteration)
        naive.end(iteration)
        torch.testing.assert_close(loss.matrix.double(), naive.matrix, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(loss.weights.double(), torch.tensor(naive.w).double(), rtol=1e-4, atol=1e-6)
        assert float(loss.mean_weight) == pytest.approx(naive.mean, rel=1e-5)
    assert loss.weights.std() > 0.05, "the weights never moved: the test would say nothing"


def test_the_gradient_of_the_loss_is_that_of_a_weighted_focal_loss() -> None:
    loss = module()
    loss.weights.copy_(torch.tensor([0.2, 2.0, 1.0, 6.0, 1.0, 0.5]))
    logits, label, weight = a_batch(0)
    logits = logits.double().float().requires_grad_()
    with branch(loss, "unsup"):
        loss(logits, label, weight, avg_factor=7.0).backward()
    x = logits.detach().double().requires_grad_()
    p = x.softmax(-1)[torch.arange(len(x)), label]
    s = torch.tensor([1 / 3, 2.0, 1.0, 5.0, 1.0, 0.5], dtype=torch.float64)[label]
    (s * weight.double() * (1 - p) * -p.log()).sum().div(7.0).backward()
    torch.testing.assert_close(logits.grad.double(), x.grad, rtol=1e-4, atol=1e-6)


def test_nothing_outside_the_training_passes_changes_the_state() -> None:
    loss = module()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(*a_batch(0), avg_factor=1.0)
    assert not loss._pending
    for name, value in loss.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_weights_stay_one_during_the_warm_up_and_the_loss_is_plain_focal() -> None:
    loss = module(warmup=5, gamma=2.0)
    for iteration in range(5):
        with branch(loss, "sup"):
            loss(*a_batch(iteration), avg_factor=1.0)
        loss.end_iteration(iteration)
        assert (loss.weights == 1).all()
    with branch(loss, "sup"):
        loss(*a_batch(9), avg_factor=1.0)
    loss.end_iteration(5)
    assert (loss.weights != 1).any()


def test_without_reweighting_the_weights_are_kept_but_not_used() -> None:
    loss = module(reweight=False)
    plain = module()
    loss.weights.copy_(torch.tensor([0.2, 2.0, 1.0, 6.0, 1.0, 0.5]))
    batch = a_batch(0)
    with branch(loss, "unsup"):
        kept = loss(*batch, avg_factor=1.0)
    torch.testing.assert_close(kept, plain(*batch, avg_factor=1.0))
    before = loss.weights.clone()
    loss.end_iteration(3)
    assert not torch.equal(loss.weights, before)


def test_a_batch_with_nan_does_not_stay_in_the_state() -> None:
    loss = module()
    with branch(loss, "sup"):
        loss(*a_batch(0), avg_factor=1.0)
    loss.end_iteration(0)
    before = loss.matrix.clone()
    logits, label, weight = a_batch(1)
    logits[3, 2] = float("nan")
    with branch(loss, "sup"):
        assert loss(logits, label, weight, avg_factor=1.0).isnan(), "the loss itself must show it"
    loss.end_iteration(1)
    torch.testing.assert_close(loss.matrix, before)
    assert loss.weights.isfinite().all()


def test_a_class_counts_as_seen_by_its_samples_and_not_by_the_size_of_its_gradient() -> None:
    """One sample of class 0 among 4,000, fitted until its gradient is 1e-10, and none of class 1."""
    loss = module(warmup=0, eta=0.5)
    logits = torch.zeros(4000, N + 1)
    logits[:, N] = 6.0
    logits[0] = torch.tensor([13.0] + [0.0] * N)
    label = torch.full((4000,), N)
    label[0] = 0
    with branch(loss, "sup"):
        loss(logits, label, torch.ones(4000), avg_factor=4000.0)
    loss.end_iteration(0)
    assert 0 < -float(loss.matrix[0, 0]) < 1e-8
    assert loss.seen.tolist() == [0.5, 0, 0, 0, 0, 0.5]
    naive = Naive(warmup=0, eta=0.5)
    naive.loss(logits, label, torch.ones(4000), "sup", 4000.0)
    naive.end(0)
    torch.testing.assert_close(loss.class_logits.double(), torch.tensor(naive.a).double(), rtol=1e-3, atol=1e-6)
    for iteration in range(1, 40):
        with branch(loss, "sup"):
            loss(logits[1:], label[1:], torch.ones(3999), avg_factor=4000.0)
        loss.end_iteration(iteration)
    assert float(loss.seen[0] / loss.mass) < 1e-8, "and not any more when it has been away for long"


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    loss = module()
    for iteration in range(4):
        for kind, seed in (("sup", iteration), ("unsup", 100 + iteration)):
            half = [part[rank * 20 : (rank + 1) * 20] for part in a_batch(seed)]
            with branch(loss, kind):  # type: ignore[arg-type]
                loss(*half, avg_factor=1.0)
        loss.end_iteration(iteration)
    torch.save(loss.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_on_halves_of_a_batch_have_the_state_of_one_on_the_whole(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    loss = module()
    for iteration in range(4):
        for kind, seed in (("sup", iteration), ("unsup", 100 + iteration)):
            with branch(loss, kind):  # type: ignore[arg-type]
                loss(*a_batch(seed), avg_factor=1.0)
        loss.end_iteration(iteration)
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, value in loss.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], value, rtol=1e-5, atol=1e-7)
