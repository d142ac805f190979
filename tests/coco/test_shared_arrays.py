"""Shared memory: what is put comes out again, in another process too, and no slot touches another."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cissod_bench.coco.shared_arrays import Slots, shared_memory


@dataclass(frozen=True)
class Value:
    """A value as a worker hands it over."""

    name: str
    numbers: npt.NDArray[np.float64]
    flags: npt.NDArray[np.bool_]


def value(size: int) -> Value:
    return Value(f"of {size}", np.arange(2 * size, dtype=np.float64).reshape(-1, 2), np.arange(size) % 3 == 0)


def assert_equal(found: Value, expected: Value) -> None:
    assert found.name == expected.name
    for name in ("numbers", "flags"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(one, other, strict=True)


def two_sides(size: int, slots: int) -> tuple[Slots, Slots]:
    descriptor = shared_memory(size)
    sides = Slots(descriptor, slots), Slots(descriptor, slots)
    os.close(descriptor)
    return sides


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), room=st.integers(1, 1200))
def test_every_slot_holds_its_own_value_whether_it_fits_or_not(sizes: list[int], room: int) -> None:
    giver, taker = two_sides(room * len(sizes), len(sizes))
    rests = [giver.put(slot, value(size)) for slot, size in enumerate(sizes)]
    for rest, size in zip(rests, sizes, strict=True):
        assert_equal(taker.get(rest), value(size))


def test_arrays_lie_in_the_slot_and_the_rest_is_small() -> None:
    giver, taker = two_sides(2**22, 2)
    rest = giver.put(1, value(10_000))
    assert len(rest) < 1_000
    found = taker.get(rest)
    giver.put(0, value(5))
    assert_equal(found, value(10_000))
    giver.put(1, Value("other", np.full((10_000, 2), 7.0), np.ones(10_000, np.bool_)))
    assert (found.numbers == 7).all()  # a view: nothing was copied
    assert taker.get(giver.put(0, None)) is None


def test_arrays_outlive_both_sides() -> None:
    giver, taker = two_sides(2**16, 1)
    found = taker.get(giver.put(0, value(100)))
    del giver, taker
    assert_equal(found, value(100))


@pytest.mark.parametrize("named", [True, False])
def test_another_process_sees_the_memory(monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    if not named:
        monkeypatch.delattr(os, "memfd_create")  # as on a Mac
    descriptor = shared_memory(2**16)
    program = (
        "import sys, numpy; from cissod_bench.coco.shared_arrays import Slots; "
        f"sys.stdout.buffer.write(Slots({descriptor}, 2).put(1, {{'a': numpy.arange(1000.0)}}))"
    )
    rest = subprocess.run([sys.executable, "-c", program], pass_fds=[descriptor], stdout=-1, check=True).stdout
    found: dict[str, Any] = Slots(descriptor, 2).get(rest)
    os.close(descriptor)
    assert len(rest) < 1_000
    np.testing.assert_array_equal(found["a"], np.arange(1000.0))
