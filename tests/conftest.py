"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

import cissod_bench.ssod  # noqa: F401  (before mmdet, wherever a test imports that)
from tests.tiny import tiny

__all__ = ["shared_data", "tiny"]

# Generation is fixed, so that a failure on one machine is a failure on all; no deadlines, since machines differ.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the project, where it is there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the project (../shared/data)")
    return folder
