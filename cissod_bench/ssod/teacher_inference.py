"""Teacher inference passes: detections on all unlabelled images during training, with the test pipeline.

A pass does not affect the run: the teacher is in evaluation mode anyway, no threshold policy or loss sees the
detections, and all random number generators are restored. The result depends on the teacher alone, not on the number of
ranks or loader workers, so a run killed during a pass simply repeats it.

A damaged image has no detections. Training uses the next intact image instead of it.
"""

from collections.abc import Iterable
from itertools import compress
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import all_gather_object, get_dist_info
from torch.utils.data import DataLoader, Dataset

from cissod_bench.ssod.data.damaged import DamagedImage
from cissod_bench.ssod.data.one_size import batches_of_one_size, image_sizes
from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.randomness import preserved_randomness
from cissod_bench.ssod.stopping import deaf_worker


def detect_unlabeled(runner: Any, lowest: float) -> PseudoBoxes:
    """Detect on D_u with the teacher. All ranks take part, and each gets all detections.

    A pass costs one forward pass of the teacher per image: for the 107,000 unlabelled images of COCO, 1/54 of its
    forward passes in training on the paper's full schedule (180,000 steps of 32 images).

    Args:
        runner: a run that trains on a `SeededConcatDataset`; its validation pipeline and batch size are used.
        lowest: detections with at most this score are dropped.

    Returns:
        Boxes by position in D_u, best first within each image.
    """
    unlabeled, validation = runner.train_dataloader.dataset.datasets[1], runner.cfg.val_dataloader
    images = _TestImages(unlabeled, validation.dataset.pipeline)
    batches = batches_of_one_size(image_sizes(unlabeled, np.arange(len(images))), validation.batch_size)
    rank, world_size = get_dist_info()
    mine = batches[rank::world_size]
    with preserved_randomness(), torch.no_grad():
        loader = DataLoader(
            images,
            batch_sampler=mine,
            num_workers=min(runner.train_dataloader.num_workers, len(mine)),
            collate_fn=whole_images,
            worker_init_fn=deaf_worker,
        )
        runner.call_hook("before_inference", batches=len(mine))
        found = PseudoBoxes.joined(list(_detections(runner, loader, mine, lowest)))
        runner.call_hook("after_inference")
        return PseudoBoxes.joined(all_gather_object(found))


def whole_images(items: list[Any]) -> tuple[list[bool], Any, list[str]]:
    """Which items of a batch are intact, the batch of those, and the messages of the damaged ones."""
    whole = [item for item in items if not isinstance(item, str)]
    damaged = [item for item in items if isinstance(item, str)]
    return [not isinstance(item, str) for item in items], pseudo_collate(whole) if whole else None, damaged


def _detections(runner: Any, loader: DataLoader[Any], batches: list[list[int]], lowest: float) -> Iterable[PseudoBoxes]:
    model = model_of(runner)
    for number, (positions, (whole, batch, damaged)) in enumerate(zip(batches, loader, strict=True)):
        samples = []
        if batch is not None:
            data = model.data_preprocessor(batch, False)
            samples = model.teacher.predict(data["inputs"], data["data_samples"], rescale=True)
        for position, sample in zip(compress(positions, whole), samples, strict=True):
            found = sample.pred_instances
            found = found[found.scores > lowest]
            yield PseudoBoxes(
                np.full(len(found), position, dtype=np.int32),
                found.labels.cpu().numpy().astype(np.int16),
                found.bboxes.float().cpu().numpy(),
                found.scores.float().cpu().numpy(),
            )
        runner.call_hook("after_inference_batch", done=number + 1, damaged=damaged)


class _TestImages(Dataset[Any]):
    """Images of an mmdet data set in another pipeline, without annotations; a message for a damaged image."""

    def __init__(self, source: Any, pipeline: list[dict[str, Any]]) -> None:
        self._source, self._pipeline = source, Compose(pipeline)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._pipeline({**self._source.get_data_info(index), "instances": []})
        except DamagedImage as error:
            return str(error)
