"""What a run changes process-wide, and takes back."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cissod_bench.training.process.isolation import OWN_FROZEN, imports_apart


@pytest.fixture
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.freeze()  # as conftest.py does


@pytest.mark.usefixtures("nothing_frozen")
def test_what_exists_is_out_of_garbage_collection_within_the_block_alone() -> None:
    before = len(gc.get_objects())
    with imports_apart():
        assert len(gc.get_objects()) < before / 100
    assert gc.get_freeze_count() == 0
    assert len(gc.get_objects()) > before * 0.9


@pytest.mark.usefixtures("nothing_frozen")
def test_what_others_have_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with imports_apart():
        pass
    assert gc.get_freeze_count() == frozen > OWN_FROZEN


def test_an_interpreter_freezes_less_by_itself() -> None:
    found = subprocess.run([sys.executable, "-c", "import gc; print(gc.get_freeze_count())"], capture_output=True)
    assert int(found.stdout) < OWN_FROZEN
