"""Importing this file registers mmdet's parts and those of this package; exported configurations name it."""

from mmdet.utils import register_all_modules

from cissod_bench.baselines import c2am, crest, daso, defrcn, eqlv2, focal, seesaw
from cissod_bench.engine import (
    checkpoints,
    compiled,
    damaged,
    dataset,
    generations,
    hooks,
    logs,
    loop,
    metric,
    observables,
    precision,
    progress,
    randomness,
    sampler,
    scalars,
    self_training,
    stages,
    stopping,
)
from cissod_bench.methods import rank_threshold, reweighting, teacher_student, thresholds

__all__ = [
    "c2am",
    "checkpoints",
    "compiled",
    "crest",
    "damaged",
    "daso",
    "dataset",
    "defrcn",
    "eqlv2",
    "focal",
    "generations",
    "hooks",
    "logs",
    "loop",
    "metric",
    "observables",
    "precision",
    "progress",
    "randomness",
    "rank_threshold",
    "reweighting",
    "sampler",
    "scalars",
    "seesaw",
    "self_training",
    "stages",
    "stopping",
    "teacher_student",
    "thresholds",
]

register_all_modules(init_default_scope=False)
