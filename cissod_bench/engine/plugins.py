"""Importing this file registers every part of the package with mmdet; exported configurations name it."""

from cissod_bench.engine import hooks, metric, progress, sampler
from cissod_bench.methods import teacher_student, thresholds

__all__ = ["hooks", "metric", "progress", "sampler", "teacher_student", "thresholds"]
