"""The data of a run: by its size, a sample of the official data is told from the whole."""

from typing import Any

from cissod_bench.evaluation.inputs import GroundTruth
from cissod_bench.splits.folder import Split
from cissod_bench.tasks.official import train_sizes


def data_facts(split: Split, truth: GroundTruth) -> dict[str, Any]:
    """What a record says of its data: the fields `split`, `data`, `label_fraction` and `split_options` of `Result`.

    Args:
        split: that was trained on.
        truth: the ground truth of the evaluation.
    """
    return {
        "split": str(split.folder),
        "data": data_sizes(split, truth),
        "label_fraction": split.label_fraction,
        "split_options": dict(split.options),
    }


def data_sizes(split: Split, truth: GroundTruth) -> dict[str, int]:
    """Images and annotations, those of the whole data by the names of `tasks.official.SIZES`, and the labelled ones."""
    labeled = {name: split.counts[name] for name in ("labeled_images", "labeled_boxes")}
    return {**train_sizes(split.source), **validation_sizes(truth), **labeled}


def validation_sizes(truth: GroundTruth) -> dict[str, int]:
    """The part of it that is about the validation data."""
    return {"validation_images": len(truth.image_ids), "validation_annotations": len(truth.boxes)}
