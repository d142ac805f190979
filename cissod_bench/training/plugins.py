"""Importing this file registers mmdet's parts and those of this package; exported configurations name it."""

from mmdet.utils import register_all_modules

from cissod_bench.baselines import c2am, daso, eqlv2, focal, seesaw
from cissod_bench.baselines.crest import crest, self_training
from cissod_bench.baselines.defrcn import defrcn, stages
from cissod_bench.methods import rank_threshold
from cissod_bench.methods.gbs import crs_hook as generations
from cissod_bench.methods.gbs import gbr as reweighting
from cissod_bench.ssod import loop, metric, precision, randomness, stopping, thresholds
from cissod_bench.ssod.data import damaged, dataset, sampler
from cissod_bench.ssod.hooks import checkpoints, compiled, logs, progress, scalars
from cissod_bench.ssod.hooks import diagnostics as observables
from cissod_bench.ssod.hooks import iteration as hooks
from cissod_bench.ssod.model import teacher_student

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
