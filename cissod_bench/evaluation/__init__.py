"""Group AP from raw per-class arrays, without torch."""

from cissod_bench.evaluation.groups import METRICS, Evaluation, evaluate, load_evaluation, save_evaluation

__all__ = ["METRICS", "Evaluation", "evaluate", "load_evaluation", "save_evaluation"]
