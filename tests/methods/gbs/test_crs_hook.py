"""CrS in the training loop: where pseudo labels come from, what the sampler gets, what is logged and saved."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.structures import InstanceData

from cissod_bench.methods.gbs import crs_hook as generations
from cissod_bench.methods.gbs.crs_hook import RebalancingHook, in_order
from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes
from cissod_bench.ssod.data.sampler import READ_AHEAD, SemiSampler
from cissod_bench.training.runner import run_job
from tests.tiny import final_state, interrupted, tiny_job

# Six iterations, three of them burn-in, two generations: the boundary is after the fifth.
OPTIONS: dict[str, Any] = {"generations": 2, "crs_gamma": 200.0, "threshold": "fixed", "theta": 0.6, "sweep": True}
FOUND = ((3, 8, 0.9), (3, 2, 0.61), (5, 8, 0.55), (20, 1, 0.99))
"""Position of an unlabelled image, class, score."""


def found(runner: Any, lowest: float) -> PseudoBoxes:
    assert lowest == 0.5, "what is not above the initial threshold is no pseudo label"
    image, label, score = zip(*FOUND, strict=True)
    boxes = np.zeros((len(FOUND), 4), np.float32)
    return PseudoBoxes(np.array(image, np.int32), np.array(label, np.int16), boxes, np.array(score, np.float32))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, np.ndarray, int]]:
    """What the sampler is given: source, factors, first batch."""
    calls: list[tuple[int, np.ndarray, int]] = []
    original = SemiSampler.repeat

    def repeat(self: SemiSampler, source: int, factors: np.ndarray, start: int) -> None:
        calls.append((source, factors, start))
        original(self, source, factors, start)

    monkeypatch.setattr(SemiSampler, "repeat", repeat)
    monkeypatch.setattr(generations, "detect_unlabeled", found)
    return calls


def test_a_sweep_at_the_boundary_decides_the_repeat_factors(
    tiny: Path, tmp_path: Path, given: list[tuple[int, np.ndarray, int]]
) -> None:
    job = tiny_job(tiny, tmp_path / "run", method="gbs", options=OPTIONS, iterations=6)
    run_job(job)
    ((source, factors, start),) = given
    assert (source, start) == (1, 5 + READ_AHEAD)

    # By hand: eq. (10) with epsilon = 200 * 1 / 2, images that hold a class by label or by pseudo label; eq. (11).
    split = json.loads(job.split.labeled_file.read_text())
    ids = [entry["id"] for entry in job.split.classes]
    images = len(split["images"]) + len(factors)
    expected = np.ones(len(factors))
    for position, label, score in FOUND:
        if score < 0.6:
            continue
        holds = {box["image_id"] for box in split["annotations"] if box["category_id"] == ids[label]}
        with_class = len(holds) + len({p for p, other, s in FOUND if other == label and s >= 0.6})
        size = max(1.0, math.sqrt(100.0 * images / with_class))
        expected[position] = max(expected[position], size * (score - 0.6))
    assert expected.max() > 2
    np.testing.assert_allclose(factors, expected, rtol=1e-5)

    lines = [json.loads(line) for line in (job.out / "observables.jsonl").read_text().splitlines()]
    for name in ("class_factors", "copies"):
        assert [name in line for line in lines] == [False] * 5 + [True], "the line of the boundary is before it"
        assert len(lines[-1][name]) == 12
    assert max(lines[-1]["class_factors"]) > 1
    above = [(position, label) for position, label, score in FOUND if score >= 0.6]
    of_class = [[math.ceil(expected[position]) for position, other in above if other == label] for label in range(12)]
    assert lines[-1]["copies"] == [np.mean(copies) if copies else None for copies in of_class]


def test_a_run_resumed_after_a_boundary_has_its_factors(
    tiny: Path, tmp_path: Path, given: list[tuple[int, np.ndarray, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = (
        tiny_job(tiny, tmp_path / name, method="gbs", options=OPTIONS, iterations=6) for name in ("whole", "resumed")
    )
    run_job(whole)
    interrupted(other, monkeypatch, after=5)
    run_job(other)
    one, two = final_state(whole.out, 6), final_state(other.out, 6)
    assert all((one[name] == two[name]).all() for name in one)
    logs = [(job.out / "observables.jsonl").read_text() for job in (whole, other)]
    assert logs[0] == logs[1]


# The default way: pseudo labels of the training passes. Eight unlabelled images with ids 100 to 107, three classes.
ITERATIONS, BURN_IN, WARMUP, GENERATIONS, CRS_GAMMA = 140, 20, 40, 3, 60.0
LABELED = [[0], [0, 1], [0], [2, 0]]


def visits_of(iteration: int, rank: int) -> list[tuple[int, list[tuple[int, float]]]]:
    """Two unlabelled images that a rank sees in an iteration: id, and (class, score) of each pseudo label."""
    generator = np.random.default_rng([iteration, rank])
    images = generator.choice(8, 2, replace=False)
    found = [generator.integers(0, 3, generator.integers(0, 3)) for _ in images]
    return [
        (100 + int(image), [(int(label), float(np.float32(generator.uniform(0.5, 1)))) for label in labels])
        for image, labels in zip(images, found, strict=True)
    ]


def thresholds_at(iteration: int) -> list[float]:
    return [0.9 - 0.002 * iteration, 0.7, 0.5]


class Images:
    """As much of an mmdet data set as the hook asks for."""

    metainfo: ClassVar = {"classes": "abc"}

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def get_cat_ids(self, index: int) -> list[int]:
        return LABELED[index]

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"img_id": 100 + index}


def train(ranks: Sequence[int]) -> list[tuple[int, np.ndarray, int]]:
    """What the hook of one process gives the sampler in a run in which it sees the images of `ranks`."""
    calls: list[tuple[int, np.ndarray, int]] = []
    model = torch.nn.Module()
    loader = SimpleNamespace(
        dataset=SimpleNamespace(datasets=[Images(4), Images(8)]),
        sampler=SimpleNamespace(repeat=lambda *given: calls.append(given)),
    )
    runner = SimpleNamespace(
        model=model,
        train_dataloader=loader,
        max_iters=ITERATIONS,
        logger=SimpleNamespace(info=lambda _: None),
        message_hub=SimpleNamespace(update_scalar=lambda *_: None),
    )
    hook = RebalancingHook(CRS_GAMMA, GENERATIONS, BURN_IN, WARMUP, count_only_pseudo=False)
    hook.before_train(runner)
    for runner.iter in range(ITERATIONS):
        model.view = None
        if runner.iter >= BURN_IN:
            visits = [visit for rank in ranks for visit in visits_of(runner.iter, rank)]
            pseudo = [
                InstanceData(
                    labels=torch.tensor([label for label, _ in found], dtype=torch.int64),
                    scores=torch.tensor([score for _, score in found]),
                )
                for _, found in visits
            ]
            samples = [SimpleNamespace(img_id=image) for image, _ in visits]
            model.view = SimpleNamespace(
                pseudo=pseudo, samples=samples, thresholds=torch.tensor(thresholds_at(runner.iter))
            )
        hook.after_train_iter(runner, 0)
    return calls


def expected_calls() -> list[tuple[int, list[float], int]]:
    """Paper sec. 3.4 with a dictionary of the most recent visits."""
    pool: dict[int, list[tuple[int, float]]] = {}
    calls = []
    for iteration in range(WARMUP, ITERATIONS):
        for rank in range(2):
            for image, found in visits_of(iteration, rank):
                kept = [
                    (label, np.float32(score) - np.float32(thresholds_at(iteration)[label])) for label, score in found
                ]
                pool[image] = [(label, float(margin)) for label, margin in kept if margin >= 0]
        length = (ITERATIONS - BURN_IN) // GENERATIONS
        if (iteration + 1 - BURN_IN) % length or iteration + 1 == ITERATIONS:
            continue
        epsilon = CRS_GAMMA * (iteration + 1 - BURN_IN) / length / GENERATIONS
        with_class = [
            sum(label in classes for classes in LABELED)
            + sum(any(label == other for other, _ in found) for found in pool.values())
            for label in range(3)
        ]
        sizes = [max(1.0, math.sqrt(epsilon * (4 + 8) / number)) for number in with_class]
        factors = [
            max([1.0, *(sizes[label] * margin for label, margin in pool.get(100 + index, []))]) for index in range(8)
        ]
        calls.append((1, factors, iteration + 1 + READ_AHEAD))
    return calls


def assert_calls(actual: list[tuple[int, np.ndarray, int]]) -> None:
    expected = expected_calls()
    assert [(source, start) for source, _, start in actual] == [(source, start) for source, _, start in expected]
    for (_, mine, _), (_, theirs, _) in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert len(expected) == GENERATIONS - 1
    assert all(max(factors) > 1.5 and min(factors) == 1 for _, factors, _ in expected)


def test_pseudo_labels_of_the_training_passes_decide_the_repeat_factors() -> None:
    """None from before the warm-up, the most recent visit of an image, margins above the thresholds of that moment."""
    assert_calls(train([0, 1]))


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(train([rank]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_fill_the_pool_as_one_that_sees_the_images_of_both(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert_calls(torch.load(tmp_path / f"{rank}.pt", weights_only=False))


def test_visits_of_several_ranks_are_in_the_order_of_one_process() -> None:
    """Against a list of visits: three iterations of two ranks with two images each."""
    generator = np.random.default_rng(0)
    visits = [
        (step, rank, image, generator.integers(0, 9, generator.integers(0, 4)).tolist())
        for step in range(3)
        for rank in range(2)
        for image in generator.integers(0, 20, 2).tolist()
    ]
    parts = []
    for rank in range(2):
        mine = [visit for visit in visits if visit[1] == rank]
        labels = np.array([label for visit in mine for label in visit[3]], dtype=np.int64)
        steps, images = ([visit[column] for visit in mine] for column in (0, 2))
        counts = [len(visit[3]) for visit in mine]
        parts.append((np.array(steps), np.array(images), np.array(counts), labels, labels / 10))
    images, counts, labels, margins = in_order(parts)
    assert images.tolist() == [visit[2] for visit in visits]
    assert counts.tolist() == [len(visit[3]) for visit in visits]
    assert labels.tolist() == [label for visit in visits for label in visit[3]]
    assert np.array_equal(margins, labels / 10)
