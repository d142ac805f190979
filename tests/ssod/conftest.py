"""The tiny data set of the tests that train."""

from tests.engine.conftest import tiny

__all__ = ["tiny"]
