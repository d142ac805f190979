"""How much data a run had: by its size, a sample of the official data is told from the whole."""

from collections.abc import Mapping
from typing import Any

from cissod_bench.evaluation.inputs import GroundTruth
from cissod_bench.tasks.official import train_sizes


def data_sizes(source: Mapping[str, Any], truth: GroundTruth) -> dict[str, int]:
    """Images and annotations of the training and the validation data, by the names of `tasks.official.SIZES`.

    Args:
        source: `Split.source`, which has the sizes of the training data that the split is of.
        truth: the ground truth of the evaluation.
    """
    return {**train_sizes(source), **validation_sizes(truth)}


def validation_sizes(truth: GroundTruth) -> dict[str, int]:
    """The part of it that is about the validation data."""
    return {"validation_images": len(truth.image_ids), "validation_annotations": len(truth.boxes)}
