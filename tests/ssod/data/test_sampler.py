"""The sampler as what it promises to be: a pure function of the batch number."""

import pickle
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from cissod_bench.ssod.data import sampler
from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import READ_AHEAD, LabeledDraw, SemiSampler, ShuffledStream


class Source:
    """As much of an mmdet data set as the sampler asks for."""

    def __init__(self, wide: list[bool], classes: list[list[int]] | None = None) -> None:
        self.wide, self.classes = wide, classes or [[0]] * len(wide)

    def __len__(self) -> int:
        return len(self.wide)

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": 4 if self.wide[index] else 3, "height": 3 if self.wide[index] else 4}

    def get_cat_ids(self, index: int) -> list[int]:
        return self.classes[index]


class Both:
    def __init__(self, *datasets: Source) -> None:
        self.datasets = datasets


def make(labeled: int = 10, unlabeled: int = 40, **options: Any) -> SemiSampler:
    wide = [[index % 3 > 0 for index in range(labeled)], [index % 4 > 0 for index in range(unlabeled)]]
    dataset = Both(Source(wide[0]), Source(wide[1]))
    return SemiSampler(dataset, **{"batch_size": 5, "source_ratio": (1, 4), "seed": 3, **options})


def batches(source: SemiSampler, count: int) -> list[list[int]]:
    indices = iter(source)
    return [[draw % len(source) for draw in islice(indices, source.batch_size)] for _ in range(count)]


def test_batches_hold_one_labelled_and_four_unlabelled_images_of_one_orientation() -> None:
    for batch in batches(make(), 200):
        assert batch[0] < 10
        assert all(index >= 10 for index in batch[1:])
        wide = [index % 3 > 0 if index < 10 else (index - 10) % 4 > 0 for index in batch]
        assert len(set(wide)) == 1


def by_orientation(drawn: Iterable[list[int]]) -> tuple[list[int], list[int]]:
    """Unlabelled images of tall and of wide batches, in their order."""
    found: tuple[list[int], list[int]] = ([], [])
    for batch in drawn:
        found[(batch[0] - 10) % 4 > 0].extend(batch)
    return found


def same(one: list[int], other: list[int]) -> bool:
    """Whether two streams are the same as far as both go."""
    length = min(len(one), len(other))
    return length > 50 and one[:length] == other[:length]


def test_every_image_comes_once_in_a_pass() -> None:
    counts = Counter(index for batch in batches(make(), 1000) for index in batch)
    for orientation in (False, True):
        same = [counts[index] for index in range(10, 50) if ((index - 10) % 4 > 0) is orientation]
        assert max(same) - min(same) <= 1
        assert min(same) > 50
    stream = ShuffledStream(np.arange(7), np.ones(7, np.int32), (1,))
    passes = stream.take(0, 21).reshape(3, 7)
    assert all(sorted(one) == list(range(7)) for one in passes.tolist())
    assert passes.tolist()[0] != passes.tolist()[1]


def test_repeat_factors_are_rounded_up() -> None:
    source = make(labeled=3)
    source.repeat(0, np.array([1.0, 1.01, 3.0]), 0)
    counts = Counter(batch[0] for batch in batches(source, 3000))
    assert counts[2] / counts[1] == pytest.approx(3 / 2, rel=0.01)  # both wide; image 0 is the only tall one


def test_repeats_hold_across_orientations() -> None:
    """As in mmdet's sampler over repeated images: an orientation whose images are repeated comes up more often.

    One orientation holds for both sources of a batch, here with 4 tall images of 10 and 10 of 40.
    """
    tall = np.arange(40) % 4 == 0
    source = make()
    source.repeat(1, np.where(tall, 5.0, 1.0), 5000)
    drawn = batches(source, 10_000)
    for part, copies in ((drawn[:5000], 1), (drawn[5000:], 5)):
        counts = Counter(index for batch in part for index in batch[1:])
        often, once = (np.mean([counts[10 + index] for index in np.flatnonzero(which)]) for which in (tall, ~tall))
        of_tall = (4 + 10 * copies) / (10 + 10 * copies + 30)
        assert often / once == pytest.approx((of_tall / 10) / ((1 - of_tall) / 30), rel=0.08)
    resumed = make()
    resumed.restore(source.state(6000))
    resumed.skip(6000 * 5)
    assert batches(resumed, 50) == drawn[6000:6050]


def test_labelled_repeat_factors_are_those_of_the_definition() -> None:
    classes = [[0]] * 9 + [[0, 1]]
    dataset = Both(Source([True] * 10, classes), Source([True] * 40))
    source = SemiSampler(dataset, 5, (1, 4), seed=0, labeled_repeat=0.9)
    counts = Counter(batch[0] for batch in batches(source, 12))
    assert counts[9] == 3  # sqrt(0.9 / 0.1) = 3
    assert all(counts[index] == 1 for index in range(9))


@pytest.mark.parametrize("skipped", [0, 1, 17, 250])
def test_skipping_is_stepping(skipped: int) -> None:
    expected = batches(make(), skipped + 5)[skipped:]
    source = make()
    source.skip(skipped * source.batch_size)
    assert batches(source, 5) == expected


def test_new_repeat_factors_hold_a_fixed_number_of_batches_later() -> None:
    factors = np.ones(40)
    factors[3] = 5.5
    source = make()
    before = batches(source, 100)
    source.repeat(1, factors, 100 + READ_AHEAD)
    before += batches(source, READ_AHEAD)
    assert before == batches(make(), 100 + READ_AHEAD)
    after = Counter(index for batch in batches(source, 400) for index in batch)
    wide = [10 + index for index in range(40) if index % 4 > 0 and index != 3]
    assert after[13] == pytest.approx(6 * np.mean([after[index] for index in wide]), rel=0.05)


def test_images_of_the_other_source_go_on_as_if_nothing_had_happened() -> None:
    """Within an orientation: how often it comes up follows from the images of both sources."""
    source = make()
    source.repeat(0, np.linspace(1, 9, 10), READ_AHEAD)
    changed, before = (by_orientation(batch[1:] for batch in batches(each, 400)) for each in (source, make()))
    assert changed != before
    assert all(same(one, other) for one, other in zip(changed, before, strict=True))


@pytest.mark.parametrize("ahead", [0, 1, READ_AHEAD])
def test_how_far_workers_read_ahead_changes_nothing(ahead: int) -> None:
    source = make()
    taken = batches(source, 50 + ahead)
    source.repeat(1, np.linspace(1, 4, 40), 50 + READ_AHEAD)
    taken += batches(source, 100 - ahead)
    reference = make()
    expected = batches(reference, 50)
    reference.repeat(1, np.linspace(1, 4, 40), 50 + READ_AHEAD)
    assert taken == expected + batches(reference, 100)


def test_workers_too_far_ahead_are_an_error() -> None:
    source = make()
    batches(source, 51 + READ_AHEAD)
    with pytest.raises(ValueError, match="drawn 67 batches, more than 16 ahead"):
        source.repeat(1, np.ones(40), 50 + READ_AHEAD)


@pytest.mark.parametrize("resumed", [100, 103, 115, 116, 120, 150])
def test_a_resumed_run_goes_on_in_its_segment(resumed: int) -> None:
    """Factors set after batch 100, in force from 116; a run resumes before, at and after that."""
    source = make()
    expected = batches(source, 103)
    source.repeat(1, np.linspace(1, 4, 40), 100 + READ_AHEAD)
    expected += batches(source, 60)
    other = make()
    other.restore(source.state(resumed))
    other.skip(resumed * other.batch_size)
    assert batches(other, 10) == expected[resumed : resumed + 10]


def test_several_changes_within_the_distance() -> None:
    """Generations of three iterations: more than one change waits for its batch."""
    source, resumed = make(), make()
    expected = []
    for step in range(12):
        expected += batches(source, 3)
        source.repeat(1, np.linspace(1, step + 1, 40), 3 * (step + 1) + READ_AHEAD)
        if step == 6:
            resumed.restore(source.state(21))
    resumed.skip(21 * resumed.batch_size)
    assert batches(resumed, 15) == expected[21:36]


@pytest.mark.parametrize("source", [0, 1])
def test_images_with_factor_zero_stay_out(source: int) -> None:
    """Two stages on different images of a source, the change known in advance and exact."""
    size = (10, 40)[source]
    first = (np.arange(size) < size // 2).astype(float)
    sampler = make()
    sampler.repeat(source, first, 0)
    sampler.repeat(source, 1 - first, 50)
    for half in (range(size // 2), range(size // 2, size)):
        drawn = {index for batch in batches(sampler, 50) for index in batch if (index >= 10) is bool(source)}
        assert drawn == {10 * source + index for index in half}
    resumed = make()
    resumed.restore(sampler.state(70))
    assert [len(segments) for segments in sampler.state(70)["segments"]] == [1, 1], "what is over is not kept"
    resumed.skip(70 * 5)
    expected = make()
    expected.repeat(source, first, 0)
    expected.repeat(source, 1 - first, 50)
    assert batches(resumed, 10) == batches(expected, 80)[70:]


def test_the_orientation_without_images_left_gives_any_that_are_left() -> None:
    source = make()
    tall = np.array([index % 3 == 0 for index in range(10)], dtype=float)
    source.repeat(0, tall, 0)
    assert {batch[0] for batch in batches(source, 100)} == {0, 3, 6, 9}


def test_a_source_without_images_left_is_refused() -> None:
    source = make()
    with pytest.raises(ValueError, match="No image is left in source 0 from batch 30 on"):
        source.repeat(0, np.zeros(10), 30)
    assert batches(source, 40) == batches(make(), 40)


def test_later_word_replaces_what_was_to_hold_from_then_on() -> None:
    source, expected = make(), make()
    source.repeat(1, np.full(40, 2.0), 20)
    source.repeat(1, np.full(40, 3.0), 10)
    expected.repeat(1, np.full(40, 3.0), 10)
    assert batches(source, 60) == batches(expected, 60)


def test_ranks_share_out_the_draws_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers included, so that an image is augmented alike whoever takes it."""

    def draws(source: SemiSampler, count: int) -> list[list[int]]:
        indices = iter(source)
        return [list(islice(indices, source.batch_size)) for _ in range(count)]

    whole = draws(make(batch_size=10, source_ratio=(2, 8)), 30)
    halves = []
    for rank in range(2):
        monkeypatch.setattr(sampler, "get_dist_info", lambda rank=rank: (rank, 2))
        halves.append(draws(make(), 30))
    for both, first, second in zip(whole, *halves, strict=True):
        assert both == first[:1] + second[:1] + first[1:] + second[1:]


def test_no_two_draws_of_a_run_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = []
    for rank in range(2):
        monkeypatch.setattr(sampler, "get_dist_info", lambda rank=rank: (rank, 2))
        source = make()
        source.skip(7 * source.batch_size)
        numbers += [draw // len(source) for draw in islice(iter(source), 50)]
    assert sorted(numbers) == list(range(7 * 2 * 5, 7 * 2 * 5 + 100))


def test_seeds_differ_and_repeat() -> None:
    assert batches(make(), 20) == batches(make(), 20)
    assert batches(make(), 20) != batches(make(seed=4), 20)


def test_a_source_without_tall_images_still_gives_batches() -> None:
    dataset = Both(Source([True] * 3), Source([index % 2 > 0 for index in range(10)]))
    assert len(batches(SemiSampler(dataset, 5, (1, 4), seed=0), 50)) == 50


def test_a_ratio_that_is_not_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="not the sum"):
        make(batch_size=6)


def joining(images: dict[int, int]) -> PromotedLabels:
    """One box of the given class on each of some unlabelled images."""
    image, label = np.array(list(images), "i4"), np.array(list(images.values()), "i2")
    boxes = PseudoBoxes(image, label, np.zeros((len(image), 4), "f4"), np.ones(len(image), "f4"))
    return PromotedLabels(boxes, np.zeros(len(image), bool))


def with_labels(source: SemiSampler, count: int) -> list[list[tuple[int, list[int] | None]]]:
    """Batches of images and the classes that come along."""
    draws = iter(source)

    def read(draw: int | LabeledDraw) -> tuple[int, list[int] | None]:
        if isinstance(draw, LabeledDraw):
            return draw.code % len(source), draw.labels.label.tolist()
        return draw % len(source), None

    return [[read(next(draws)) for _ in range(source.batch_size)] for _ in range(count)]


def join(source: SemiSampler, images: dict[int, int], start: int) -> None:
    factors = np.concatenate([np.ones(10), np.isin(np.arange(40), list(images)) * 1.5])
    source.repeat(0, factors, start, joining(images))


def test_unlabelled_images_join_the_labelled_ones_and_bring_their_labels_along() -> None:
    source = make()
    join(source, {3: 0, 8: 2}, 100)
    join(source, {8: 1, 20: 5}, 200)
    drawn = with_labels(source, 400)
    assert all(labels is None for batch in drawn for _, labels in batch[1:]), "as unlabelled images they stay as before"
    unlabeled = [by_orientation([index for index, _ in batch[1:]] for batch in drawn)]
    unlabeled.append(by_orientation(batch[1:] for batch in batches(make(), 400)))
    assert all(same(one, other) for one, other in zip(*unlabeled, strict=True))
    assert {index for (index, _), *_ in drawn[:100]} == set(range(10))
    for part, images in ((drawn[100:200], {3: 0, 8: 2}), (drawn[200:], {8: 1, 20: 5})):
        first = [batch[0] for batch in part]
        assert {index for index, labels in first if labels is None} == set(range(10))
        joined = {(index - 10, *labels) for index, labels in first if labels is not None}
        assert joined == set(images.items())
        counts = Counter(index for index, _ in first)
        assert counts[18] == pytest.approx(2 * np.mean([counts[index] for index in (3, 6, 9)]), rel=0.2)


@pytest.mark.parametrize("resumed", [99, 100, 150, 200, 250])
def test_a_resumed_run_has_the_labels_of_its_generation(resumed: int) -> None:
    source = make()
    expected = with_labels(source, 90)
    join(source, {3: 0, 8: 2}, 100)
    expected += with_labels(source, 100)
    join(source, {8: 1, 20: 5}, 200)
    expected += with_labels(source, 100)
    other = make()
    other.restore(pickle.loads(pickle.dumps(source.state(resumed))) if resumed >= 190 else source_at(resumed))
    other.skip(resumed * other.batch_size)
    assert with_labels(other, 10) == expected[resumed : resumed + 10]


def source_at(done: int) -> Any:
    """State of a run between the two changes."""
    source = make()
    with_labels(source, 90)
    join(source, {3: 0, 8: 2}, 100)
    with_labels(source, done - 90)
    return pickle.loads(pickle.dumps(source.state(done)))
