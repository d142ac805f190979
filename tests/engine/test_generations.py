"""CrS in the training loop: where pseudo labels come from, what the sampler gets, what is logged and saved."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.engine import generations
from cissod_bench.engine.generations import in_order
from cissod_bench.engine.run import run_job
from cissod_bench.engine.sampler import READ_AHEAD, SemiSampler
from cissod_bench.methods.found_boxes import FoundBoxes
from tests.engine.conftest import tiny_job
from tests.engine.test_run import final_state, interrupted

# Six iterations, three of them burn-in, two generations: the boundary is after the fifth.
OPTIONS: dict[str, Any] = {"generations": 2, "crs_gamma": 200.0, "threshold": "fixed", "theta": 0.6, "sweep": True}
FOUND = ((3, 8, 0.9), (3, 2, 0.61), (5, 8, 0.55), (20, 1, 0.99))
"""Position of an unlabelled image, class, score."""


def found(runner: Any, lowest: float) -> FoundBoxes:
    assert lowest == 0.5, "what is not above the initial threshold is no pseudo label"
    image, label, score = zip(*FOUND, strict=True)
    boxes = np.zeros((len(FOUND), 4), np.float32)
    return FoundBoxes(np.array(image, np.int32), np.array(label, np.int16), boxes, np.array(score, np.float32))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, np.ndarray, int]]:
    """What the sampler is given: source, factors, first batch."""
    calls: list[tuple[int, np.ndarray, int]] = []
    original = SemiSampler.repeat

    def repeat(self: SemiSampler, source: int, factors: np.ndarray, start: int) -> None:
        calls.append((source, factors, start))
        original(self, source, factors, start)

    monkeypatch.setattr(SemiSampler, "repeat", repeat)
    monkeypatch.setattr(generations, "sweep", found)
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
    assert ["repeat_factors" in line for line in lines] == [False] * 5 + [True], "the line of the boundary is before it"
    assert len(lines[-1]["repeat_factors"]) == 12
    assert max(lines[-1]["repeat_factors"]) > 1


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
