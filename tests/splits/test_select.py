"""Selection: equal to a naive walk, and its promises as properties."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cissod_bench.splits import select as draw_module
from cissod_bench.splits.select import (
    Pairs,
    Selection,
    SelectionKey,
    hold_out,
    labeled_count,
    select_floor,
    select_labeled,
)
from cissod_bench.tasks.records import SelectionRule

KEY = SelectionKey(protocol=1, task="toy", seed=0)


def make_pairs(images: list[dict[int, int]], num_classes: int) -> Pairs:
    """Images as {label: boxes that count}."""
    entries = [(row, label, boxes) for row, image in enumerate(images) for label, boxes in sorted(image.items())]
    table = np.array(entries, np.int32).reshape(-1, 3)
    return Pairs(table[:, 0], table[:, 1], table[:, 2], len(images), num_classes)


def naive_order(image_ids: list[int], key: SelectionKey, role: str) -> list[int]:
    def place(image_id: int) -> tuple[bytes, int]:
        text = f"{key.protocol}\0{key.task}\0{key.seed}\0{role}\0{image_id}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest(), image_id

    return sorted(range(len(image_ids)), key=lambda row: place(image_ids[row]))


def naive_floor(images: list[dict[int, int]], ids: list[int], floor: int, how: str) -> list[int]:
    """The walk of the specification, image by image."""
    total: dict[int, int] = {}
    for image in images:
        for label, boxes in image.items():
            total[label] = total.get(label, 0) + boxes
    have = dict.fromkeys(total, 0)
    taken = []
    for row in naive_order(ids, KEY, "minority"):
        if all(have[label] >= min(floor, total[label]) for label in total):
            break
        needed = [label for label in images[row] if have[label] < floor]
        if needed or (how == "uniform" and images[row]):
            taken.append(row)
            for label, boxes in images[row].items():
                have[label] += boxes
    return sorted(taken)


CLASSES = 5
IMAGE = st.dictionaries(st.integers(0, CLASSES - 1), st.integers(1, 4), max_size=3)
IMAGES = st.lists(IMAGE, min_size=1, max_size=40)


def ids_of(images: list[Any], start: int = 10) -> Any:
    return np.arange(start, start + 3 * len(images), 3)


@settings(max_examples=200, deadline=None)
@given(
    images=IMAGES, floor=st.integers(1, 6), how=st.sampled_from(["needed", "uniform"]),
    buckets=st.sampled_from([1, 2, 7, 256]),
)  # fmt: skip
def test_the_floor_draw_equals_the_naive_walk(images: list[dict[int, int]], floor: int, how: Any, buckets: int) -> None:
    pairs = make_pairs(images, CLASSES)
    if not len(pairs.image):
        return
    ids = ids_of(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw_module, "_BUCKETS", buckets)
        taken = select_floor(pairs, ids, floor, how, KEY, "minority")
    assert taken.tolist() == naive_floor(images, ids.tolist(), floor, how)


@given(ids=st.lists(st.integers(-(2**53), 2**53), unique=True, max_size=30), role=st.sampled_from(["a", "b"]))
def test_the_order_is_that_of_blake2b(ids: list[int], role: str) -> None:
    assert KEY.order(np.array(ids, np.int64), role).tolist() == naive_order(ids, KEY, role)


RULES = st.builds(
    SelectionRule,
    fraction=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    floor=st.integers(0, 4),
    coverage=st.booleans(),
    minority_draw=st.sampled_from(["needed", "uniform"]),
    stratify=st.booleans(),
)
MINORITY = np.array([False, False, False, True, True])


def select(images: list[dict[int, int]], how: SelectionRule, ids: Any = None, available: Any = None) -> Selection:
    pairs = make_pairs(images, CLASSES)
    ids = ids_of(images) if ids is None else ids
    free = np.ones(len(images), np.bool_) if available is None else available
    return select_labeled(pairs.only(free[pairs.image]), ids, free, MINORITY, how, KEY)


@settings(max_examples=200, deadline=None)
@given(images=IMAGES, how=RULES, data=st.data())
def test_parts_are_disjoint_available_and_floors_are_met_or_exhausted(
    images: list[dict[int, int]], how: SelectionRule, data: st.DataObject
) -> None:
    free = np.array(data.draw(st.lists(st.booleans(), min_size=len(images), max_size=len(images))))
    selected = select(images, how, available=free)
    labeled = [*selected.majority.tolist(), *selected.minority.tolist()]
    assert len(set(labeled)) == len(labeled)
    assert all(free[row] for row in labeled)
    chosen = labeled if how.coverage else selected.minority.tolist()
    for label in range(CLASSES):
        if how.coverage or MINORITY[label]:
            available = sum(image.get(label, 0) for image, ok in zip(images, free, strict=True) if ok)
            assert sum(images[row].get(label, 0) for row in chosen) >= min(how.floor, available)
    if not how.coverage:
        candidates = [
            row for row, image in enumerate(images) if free[row] and any(not MINORITY[label] for label in image)
        ]
        assert selected.majority_drawn == labeled_count(len(candidates), how)
        assert set(selected.majority.tolist()) <= set(candidates)
        assert (
            len(selected.majority) + len(set(candidates) & set(selected.minority.tolist())) >= selected.majority_drawn
        )
    else:
        assert len(labeled) == max(labeled_count(int(free.sum()), how), selected.coverage)


@settings(max_examples=150, deadline=None)
@given(images=IMAGES, how=RULES, more=st.sampled_from([0.3, 0.6, 1.0]))
def test_a_larger_fraction_only_adds_images(images: list[dict[int, int]], how: SelectionRule, more: float) -> None:
    small = select(images, how)
    large = select(images, replace(how, fraction=max(how.fraction, more)))
    assert small.minority.tolist() == large.minority.tolist()
    assert set(small.majority.tolist()) <= set(large.majority.tolist())


@settings(max_examples=150, deadline=None)
@given(images=IMAGES, how=RULES, data=st.data())
def test_the_order_of_the_images_changes_nothing(
    images: list[dict[int, int]], how: SelectionRule, data: st.DataObject
) -> None:
    ids = ids_of(images)
    permutation = np.array(data.draw(st.permutations(range(len(images)))))
    first = select(images, how)
    second = select([images[row] for row in permutation], how, ids=ids[permutation])
    for part in ("majority", "minority"):
        before = sorted(ids[getattr(first, part)].tolist())
        after = sorted(ids[permutation][getattr(second, part)].tolist())
        assert before == after


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, how=RULES)
def test_renaming_images_that_hold_no_candidate_class_changes_nothing(
    images: list[dict[int, int]], how: SelectionRule
) -> None:
    """D_s does not depend on the ids of images without minority classes, nor D_m on those without majority classes."""
    how = replace(how, coverage=False)
    ids = ids_of(images)
    renamed = ids.copy()
    unrelated = [row for row, image in enumerate(images) if not any(MINORITY[label] for label in image)]
    renamed[unrelated] += 10_000
    assert select(images, how).minority.tolist() == select(images, how, ids=renamed).minority.tolist()
    unrelated = [row for row, image in enumerate(images) if all(MINORITY[label] for label in image)]
    renamed = ids.copy()
    renamed[unrelated] += 10_000
    lone = replace(how, floor=0)
    assert select(images, lone).majority.tolist() == select(images, lone, ids=renamed).majority.tolist()


def test_the_number_of_images_is_rounded_half_up_from_the_written_fraction() -> None:
    # 0.1 is a little more than 1/10 as a binary number, 0.7 a little less than 7/10.
    assert [labeled_count(count, SelectionRule(fraction=0.1)) for count in (4, 5, 14, 15, 98_459, 100_941)] == [
        0, 1, 1, 2, 9_846, 10_094,
    ]  # fmt: skip
    assert labeled_count(5, SelectionRule(fraction=0.7)) == 4
    assert labeled_count(5, SelectionRule(fraction=0.7, count=2)) == 2
    assert labeled_count(5, SelectionRule(count=9)) == 5


@settings(max_examples=150, deadline=None)
@given(images=IMAGES, fraction=st.sampled_from([0.1, 0.25, 0.5]))
def test_strata_are_drawn_in_proportion(images: list[dict[int, int]], fraction: float) -> None:
    """A stratum is all images whose rarest class is the same; of each about the wanted part is selected."""
    selected = select(images, SelectionRule(fraction=fraction, floor=0, coverage=True, stratify=True)).majority.tolist()
    holding = [sum(label in image for image in images) for label in range(CLASSES)]

    def stratum(row: int) -> int:
        return min(images[row], key=lambda label: (holding[label], label), default=CLASSES)

    strata = [[row for row in range(len(images)) if stratum(row) == label] for label in range(CLASSES + 1)]
    strata = [rows for rows in strata if rows]
    part = len(selected) / len(images)
    for rows in strata:
        # Half an image by rounding, and the threshold common to all strata is off by half an image of each.
        slack = 0.5 + 0.5 * len(strata) * len(rows) / len(images)
        assert abs(len(set(rows) & set(selected)) - part * len(rows)) <= slack + 1e-9


def test_stratified_images_are_in_proportion() -> None:
    images = [{0: 1, 1: 1}] * 30 + [{0: 1}] * 60 + [{2: 1}] * 10
    selected = select(images, SelectionRule(fraction=0.1, floor=0, stratify=True)).majority
    assert [int(((selected >= low) & (selected < high)).sum()) for low, high in ((0, 30), (30, 90), (90, 100))] == [
        3,
        6,
        1,
    ]


@given(count=st.integers(0, 50), folds=st.integers(2, 6))
def test_folds_part_the_images(count: int, folds: int) -> None:
    ids = np.arange(count) * 7
    held = np.stack([hold_out(ids, folds, fold, KEY) for fold in range(folds)])
    assert held.sum(axis=0).tolist() == [1] * count
    sizes = held.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
