"""Importing this file registers mmdet's parts and those of this package; exported configurations name it."""

from mmdet.utils import register_all_modules

from cissod_bench.engine import hooks, metric, progress, sampler
from cissod_bench.methods import teacher_student, thresholds

__all__ = ["hooks", "metric", "progress", "sampler", "teacher_student", "thresholds"]

register_all_modules(init_default_scope=False)
