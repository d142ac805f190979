"""What all tests share."""

import gc
from pathlib import Path

import pytest
from hypothesis import settings

import cissod_bench.ssod  # noqa: F401  (before mmdet, wherever a test imports that)
from tests.tiny import tiny

__all__ = ["shared_data", "tiny"]

# Generation is fixed, so that a failure on one machine is a failure on all; no deadlines, since machines differ.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


def pytest_collection_finish() -> None:
    """Garbage collection passes over what is imported: mmengine asks for one with every data set, which takes 0.4 s."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """The interpreter clears at its end what it finds."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the project, where it is there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the project (../shared/data)")
    return folder
