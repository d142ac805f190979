"""The labelled and the unlabelled images as one data set, whose items depend on nothing but the draw."""

import random
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset

from cissod_bench.ssod.data.damaged import DamagedImage, mark, next_of_source
from cissod_bench.ssod.data.pseudo_boxes import ImageLabels
from cissod_bench.ssod.data.sampler import LabeledDraw
from cissod_bench.ssod.randomness import derived_seed

NAMED = 3
"""Damaged images of a message that has too many."""


class SeededConcatDataset(ConcatDataset):
    """Data sets behind each other, whose items are augmented by the number of the draw.

    The sampler encodes a draw as `index + len(self) * number`; see `SemiSampler`. An unlabelled image that is drawn
    with labels goes through the labelled images' pipeline with these labels.

    Args:
        datasets: the labelled and the unlabelled images, or the labelled ones alone.
        seed: the run's seed.
        damaged_limit: number of damaged images in a row that is tolerated, see `damaged.py`.
    """

    def __init__(self, datasets: list[Any], seed: int, damaged_limit: int, **options: Any) -> None:
        super().__init__(datasets, **options)
        self.seed, self.damaged_limit = seed, damaged_limit

    def __getitem__(self, draw: int | LabeledDraw) -> Any:
        """The augmented item of one draw, or of the next image that is whole.

        Raises:
            DamagedImage: too many damaged images in a row, or one that is drawn with labels.
        """
        code, labels = draw if isinstance(draw, LabeledDraw) else (draw, None)
        number, index = divmod(code, len(self))
        seed = derived_seed(self.seed, "augmentation", number)
        damaged: list[str] = []
        while len(damaged) <= self.damaged_limit:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (mmcv's transforms use the global generator)
            if labels is not None:
                return self._labeled(index, labels)
            try:
                item = super().__getitem__(index)
            except DamagedImage as error:
                damaged.append(str(error))
                index = next_of_source(index, self.cumulative_sizes)
                continue
            if damaged:
                mark(item, damaged)
            return item
        damaged = list(dict.fromkeys(damaged))  # a source may be shorter than the limit
        more = f" And {len(damaged) - NAMED} more." if len(damaged) > NAMED else ""
        raise DamagedImage(
            "More damaged training images in a row than --damaged-images allows "
            f"({self.damaged_limit}): {' '.join(damaged[:NAMED])}{more}"
        )

    def _labeled(self, index: int, labels: ImageLabels) -> Any:
        labeled, unlabeled = self.datasets
        info = unlabeled.get_data_info(index - len(labeled))
        return labeled.pipeline({**info, "instances": instances(labels)})


def instances(labels: ImageLabels) -> list[dict[str, Any]]:
    """Labels of an image as mmdet's data sets hold them."""
    columns = (labels.box.tolist(), labels.label.tolist(), labels.ignored.astype(int).tolist())
    return [
        {"bbox": box, "bbox_label": label, "ignore_flag": ignored} for box, label, ignored in zip(*columns, strict=True)
    ]
