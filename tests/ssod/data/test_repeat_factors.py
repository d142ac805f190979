"""Repeat factors against mmengine's implementation, the definition, and numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import BaseDataset, ClassBalancedDataset

from cissod_bench.ssod.data.repeat_factors import repeat_factors

IMAGES = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=30)


@given(images=IMAGES, threshold=st.floats(1e-3, 1.0))
def test_definition(images: list[list[int]], threshold: float) -> None:
    """LVIS paper: r_c = max(1, sqrt(t / f_c)), image factor = max over its classes."""
    expected = []
    for classes in images:
        factor = 1.0
        for name in classes:
            fraction = sum(name in other for other in images) / len(images)
            factor = max(factor, math.sqrt(threshold / fraction))
        expected.append(factor)
    np.testing.assert_allclose(repeat_factors(images, threshold), expected, rtol=1e-12)


class Images(BaseDataset):
    def __init__(self, classes: list[list[int]]) -> None:
        self.classes = classes
        super().__init__(metainfo={"classes": tuple("abcdefg")})

    def load_data_list(self) -> list[dict[str, int]]:
        return [{"number": number} for number in range(len(self.classes))]

    def get_cat_ids(self, idx: int) -> list[int]:
        return self.classes[idx]


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5])
def test_rounded_up_factors_are_those_of_mmengine(threshold: float) -> None:
    generator = np.random.default_rng(0)
    images = [generator.choice(7, size=generator.integers(0, 4), p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.01]).tolist()
              for _ in range(300)]  # fmt: skip
    balanced = ClassBalancedDataset(Images(images), oversample_thr=threshold)
    repeated = np.bincount([balanced._get_ori_dataset_idx(index) for index in range(len(balanced))])
    np.testing.assert_array_equal(np.ceil(repeat_factors(images, threshold)), repeated)


def test_the_rarest_class_of_the_release() -> None:
    """2 of 10,170 images at t = 0.1: sqrt(508.5) = 22.55, so 23 copies."""
    images = [[1]] * 2 + [[0]] * 10_168
    factors = repeat_factors(images, 0.1)
    assert factors[0] == pytest.approx(22.55, abs=0.005)
    assert factors[5] == 1.0


def test_images_without_classes_come_once() -> None:
    assert repeat_factors([[], []], 0.5).tolist() == [1.0, 1.0]
