"""CrS against loops, the numbers of the release, and a dictionary as the pool's oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cissod_bench.errors import UserError
from cissod_bench.methods.gbs.crs import (
    PseudoLabelPool,
    class_copies,
    class_factors,
    generation_factors,
    image_factors,
)


def test_the_numbers_of_the_release() -> None:
    """eps .25, N 117,000, m 50: S = 24.19; a box of score .95 at threshold .5 gives r = 10.9, so 11 copies."""
    factors = class_factors(np.array([50]), 117_000, 0.25)
    assert factors[0] == pytest.approx(24.19, abs=0.005)
    images = image_factors(1, np.array([0]), np.array([0]), np.array([0.45]), factors)
    assert images[0] == pytest.approx(10.9, abs=0.05)
    assert math.ceil(images[0]) == 11


def test_a_class_in_no_image_and_the_first_generation_are_neutral() -> None:
    assert class_factors(np.array([0, 3]), 100, 0.5).tolist() == [1.0, math.sqrt(50 / 3)]
    assert class_factors(np.array([1, 3]), 100, 0.0).tolist() == [1.0, 1.0]


VISITS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.5, width=32)), max_size=4),
    ),
    max_size=40,
)


@given(visits=VISITS, chunk=st.integers(1, 7), only_pseudo=st.booleans())
def test_pool_and_factors_against_a_dictionary(
    visits: list[tuple[int, list[tuple[int, float]]]], chunk: int, only_pseudo: bool
) -> None:
    pool = PseudoLabelPool(10)
    pool.clean_rows = 5  # so that clean-ups happen all the time
    naive: dict[int, list[tuple[int, float]]] = {}
    for start in range(0, len(visits), chunk):
        part = visits[start : start + chunk]
        rows = [row for _, labels in part for row in labels]
        pool.add(
            np.array([image for image, _ in part]),
            np.array([len(labels) for _, labels in part]),
            np.array([label for label, _ in rows], dtype=np.int64),
            np.array([margin for _, margin in rows], dtype=np.float64),
        )
        naive.update(part)
    assert pool.coverage == pytest.approx(len(naive) / 10)
    labeled = np.array([7, 0, 2, 0])
    epsilon, num_labeled = 0.3, 8
    present = [int(labeled[c]) + sum(any(label == c for label, _ in rows) for rows in naive.values()) for c in range(4)]
    unlabeled = sum(bool(rows) for rows in naive.values()) if only_pseudo else 10
    sizes = [max(1.0, math.sqrt(epsilon * (num_labeled + unlabeled) / m)) if m else 1.0 for m in present]
    expected = []
    for image in range(10):
        factor = 1.0
        for label, margin in naive.get(image, []):
            factor = max(factor, sizes[label] * margin)
        expected.append(factor)
    classes, images = generation_factors(pool, labeled, num_labeled, epsilon, only_pseudo)
    np.testing.assert_allclose(classes, sizes, rtol=1e-6)
    np.testing.assert_allclose(images, expected, rtol=1e-6)
    holds = [[image for image, rows in naive.items() if any(label == c for label, _ in rows)] for c in range(4)]
    copies = [np.mean([math.ceil(images[image]) for image in each]) if each else np.nan for each in holds]
    np.testing.assert_allclose(class_copies(pool, images, 4), copies)


def test_a_saved_pool_goes_on_as_if_nothing_had_happened() -> None:
    pool = PseudoLabelPool(4)
    pool.add(np.array([1, 2]), np.array([1, 2]), np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]))
    other = PseudoLabelPool(4)
    other.restore(pool.state())
    for each in (pool, other):
        each.add(np.array([2]), np.array([0]), np.array([], dtype=np.int64), np.array([]))
    one, two = (generation_factors(each, np.array([1, 1]), 2, 9.0) for each in (pool, other))
    assert one[0].tolist() == two[0].tolist()
    assert one[1].tolist() == two[1].tolist()
    assert other.images_with_labels() == 1


def test_a_pool_of_another_split_is_refused() -> None:
    with pytest.raises(UserError, match="another split"):
        PseudoLabelPool(3).restore(PseudoLabelPool(4).state())


def test_no_pseudo_label_for_a_whole_generation_leaves_sampling_uniform() -> None:
    assert generation_factors(PseudoLabelPool(5), np.array([3, 0]), 4, 0.45)[1].tolist() == [1.0] * 5


def test_memory_of_a_pool_of_objects365_size() -> None:
    """1.7 million images, visited over and over with two labels each: rows of old visits do not pile up."""
    pool = PseudoLabelPool(1_700_000)
    generator = np.random.default_rng(0)
    for _ in range(12):
        images = generator.permutation(1_700_000)[:500_000]
        labels = generator.integers(0, 365, 1_000_000)
        pool.add(images, np.full(500_000, 2), labels, np.full(1_000_000, 0.1))
    pool.clean()
    rows = sum(getattr(pool, name).nbytes for name in ("visit", "image", "row_visit", "label", "margin"))
    assert rows < 60e6
    assert len(pool.image) == 2 * (pool.visit > 0).sum()
