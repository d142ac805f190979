"""Two stages in one run: pre-training on the majority classes, then fine-tuning on a balanced set (DeFRCN).

Everything here follows from the iteration and the run's seed, so that nothing but the optimiser's own state has to be
saved: a run resumed before, at or after the change equals the uninterrupted one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from numpy.typing import NDArray

from cissod_bench.baselines.defrcn.calibration import Calibration, load_imagenet_network
from cissod_bench.baselines.defrcn.heads import reinitialise, start_fine_tuning
from cissod_bench.errors import UserError
from cissod_bench.splits.folder import read_ids
from cissod_bench.ssod.data.repeat_factors import repeat_factors
from cissod_bench.ssod.hooks.iteration import model_of, wrap_again
from cissod_bench.ssod.randomness import derived_seed

LATE = 0.8
"""Part of the second stage after which its learning rate falls to a tenth (original: 4,800 of 6,000 iterations)."""

Bool = NDArray[np.bool_]
Int = NDArray[np.int64]


class TwoStageHook(Hook):
    """Says which labelled images and boxes each stage trains on, changes the student between them, sets the rate.

    Args:
        start: iterations of the first stage.
        minority: labels of the minority classes.
        minority_images: file with the ids of D_s.
        threshold: oversampling threshold t of RFS on D_m in the first stage.
        shots: boxes of each class in the second stage.
        roi_gradient: lambda of the RoI head in the second stage.
        dropout: before the classifier in the second stage.
        learning_rate: of the second stage, in units of the run's.
        weight_decay: of the second stage.
        pcb: file of the network that calibrates scores of the second stage at test time, None to go without.
    """

    def __init__(
        self,
        start: int,
        minority: Sequence[int],
        minority_images: str,
        threshold: float,
        shots: int,
        roi_gradient: float,
        dropout: float,
        learning_rate: float,
        weight_decay: float,
        pcb: str | None = None,
    ) -> None:
        self.start, self.minority, self.minority_images = start, list(minority), Path(minority_images)
        self.threshold, self.shots = threshold, shots
        self.roi_gradient, self.dropout = roi_gradient, dropout
        self.learning_rate, self.weight_decay, self.pcb = learning_rate, weight_decay, pcb
        self._fine_tuning = False
        self.balanced: Bool = np.zeros(0, dtype=bool)

    def before_train(self, runner: Any) -> None:
        """Choose the labelled images of both stages; before the first batch.

        Raises:
            UserError: there is none for the first stage.
        """
        sampler, labeled = runner.train_dataloader.sampler, runner.train_dataloader.dataset.datasets[0]
        infos = [labeled.get_data_info(index) for index in range(len(labeled))]
        ids = np.array([info["img_id"] for info in infos], dtype=np.int64)
        in_minority_part = np.isin(ids, read_ids(self.minority_images))
        # Crowds count for RFS and for the first stage, as in mmdet and in the selection of D_m; they are not shots.
        classes = [np.setdiff1d([each["bbox_label"] for each in info["instances"]], self.minority) for info in infos]
        first = np.flatnonzero([len(found) > 0 for found in classes] & ~in_minority_part)
        if len(first) == 0:
            raise UserError(f"{labeled.ann_file}: no labelled image holds a majority class. Label more images.")
        factors = np.zeros(len(labeled))
        factors[first] = repeat_factors([classes[index].astype(int).tolist() for index in first], self.threshold)

        hashes = np.array([derived_seed(runner.seed, "balanced set", number) for number in ids.tolist()])
        labels = [_boxes(info)[1] for info in infos]
        self.balanced = balanced_images(
            labels, in_minority_part, np.lexsort((ids, hashes)), len(labeled.metainfo["classes"]), self.shots
        )
        if self.start > 0:
            sampler.repeat(0, factors, 0)
        sampler.repeat(0, self.balanced.astype(np.float64), self.start)
        runner.logger.info(
            f"Stage 1: {len(first)} labelled images, {np.ceil(factors).sum():.0f} per epoch; stage 2 from iteration "
            f"{self.start + 1} on: {self.balanced.sum()} labelled images, {self.shots} boxes of each class or all"
        )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Take the minority boxes out of the batch of the first stage; change the stage; set the rate of the second."""
        if runner.iter < self.start:
            leave_out(data_batch["data_samples"]["sup"], self.minority)
            return
        optimizer = runner.optim_wrapper.optimizer
        if not self._fine_tuning:
            self._fine_tuning = True
            self._change(runner, optimizer)
        late = runner.iter >= self.start + round(LATE * (runner.max_iters - self.start))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.learning_rate * (0.1 if late else 1.0)

    def _change(self, runner: Any, optimizer: torch.optim.Optimizer) -> None:
        """Turn to the second stage; what is in checkpoints changes only where no checkpoint has it changed yet."""
        model = model_of(runner)
        start_fine_tuning(model.student, self.roi_gradient, self.dropout)
        wrap_again(runner)
        if runner.iter > self.start:
            return
        generator = torch.Generator().manual_seed(derived_seed(runner.seed, "minority rows"))
        reinitialise(model.student.roi_head.bbox_head, self.minority, generator)
        model.teacher.load_state_dict(model.student.state_dict())
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["weight_decay"] = self.weight_decay

    def before_val(self, runner: Any) -> None:
        """Learn the prototypes of the calibration when the second stage is first evaluated."""
        model = model_of(runner)
        if self.pcb is None or runner.iter < self.start or model.calibration is not None:
            return
        labeled = runner.train_dataloader.dataset.datasets[0]
        device = next(model.parameters()).device
        calibration = Calibration(
            load_imagenet_network(Path(self.pcb)), self.minority, len(labeled.metainfo["classes"]), device
        )
        calibration.learn(_labelled(labeled, self.balanced))
        model.calibration = calibration


def balanced_images(labels: Sequence[Int], chosen: Bool, order: Int, num_classes: int, shots: int) -> Bool:
    """Images that give each class enough boxes: those chosen already, and more of them where a class needs them.

    Classes are filled from the rarest on (fewest boxes in all images, then by label). For each, images that hold it are
    taken in the given order while it has fewer than `shots` boxes; all boxes of an image taken count.

    Args:
        labels: for each of N images the (K,) labels of its boxes, one entry a box.
        chosen: (N,) images to start from.
        order: (N,) all images in the order in which they are candidates.
        num_classes: number of classes n.
        shots: boxes wanted of each class; a class with fewer in all images gets all of them.

    Returns:
        (N,) images.
    """
    chosen = chosen.copy()
    counts = np.stack([np.bincount(found, minlength=num_classes) for found in labels])
    have = counts[chosen].sum(axis=0)
    for label in np.argsort(counts.sum(axis=0), kind="stable"):
        for image in order[counts[order, label] > 0]:
            if have[label] >= shots:
                break
            if not chosen[image]:
                chosen[image] = True
                have += counts[image]
    return chosen


def leave_out(samples: Sequence[Any], classes: Sequence[int]) -> None:
    """Take the boxes of some classes out of labelled samples, in place; entries without a sample are None."""
    unwanted = torch.as_tensor(classes, dtype=torch.long)
    for sample in samples:
        if sample is not None:
            found = sample.gt_instances
            sample.gt_instances = found[~torch.isin(found.labels, unwanted.to(found.labels.device))]


def _labelled(dataset: Any, chosen: Bool) -> Iterator[tuple[Path, torch.Tensor, torch.Tensor]]:
    """File, boxes and labels of the chosen images."""
    for index in np.flatnonzero(chosen).tolist():
        info = dataset.get_data_info(index)
        boxes, labels = _boxes(info)
        yield Path(info["img_path"]), torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(labels)


def _boxes(info: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(K, 4) corners and (K,) labels of an image's boxes that are no crowd."""
    kept = [instance for instance in info["instances"] if not instance["ignore_flag"]]
    corners = np.array([instance["bbox"] for instance in kept], dtype=np.float64).reshape(-1, 4)
    return corners, np.array([instance["bbox_label"] for instance in kept], dtype=np.int64)
