"""The tiny data set of the engine's tests."""

from tests.engine.conftest import tiny

__all__ = ["tiny"]
