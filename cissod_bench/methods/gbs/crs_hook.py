"""Class-rebalancing sampling in training: the pool fills with pseudo labels; each generation changes the sampler."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from numpy.typing import NDArray

from cissod_bench.methods.gbs.crs import PseudoLabelPool, class_copies, generation_factors
from cissod_bench.ssod.data.sampler import READ_AHEAD
from cissod_bench.ssod.generations import boundaries_after, generation_of, is_boundary
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.teacher_inference import detect_unlabeled

FLUSH = 50
"""Iterations between two transfers of pseudo labels from the device, so that no step waits for one."""


class RebalancingHook(Hook):
    """Class-rebalancing sampling (CrS, paper sec. 3.4) in the training loop.

    Pseudo labels come from the teacher's training-time outputs (release), most recent visit, or from an inference pass
    over D_u at each boundary. Epsilon rises by generation from 0, so the first generation is uniform. The sampler takes
    the new factors without a new loader.

    Args:
        gamma: range coefficient of eq. (10).
        generations: number N_t of equal generations after the burn-in; the last may be a part of one.
        burn_in: first iterations, which have no pseudo labels.
        warmup: iterations before pseudo labels enter the pool.
        count_only_pseudo: see `generation_factors`.
        sweep: at each boundary, fill the pool from the teacher's detections on all unlabelled images.
    """

    def __init__(
        self,
        gamma: float,
        generations: float,
        burn_in: int,
        warmup: int,
        count_only_pseudo: bool,
        sweep: bool = False,
    ) -> None:
        self.gamma, self.generations, self.burn_in, self.warmup = gamma, generations, burn_in, warmup
        self.count_only_pseudo, self.sweep = count_only_pseudo, sweep
        self._waiting: list[tuple[list[int], list[int], torch.Tensor, torch.Tensor]] = []
        self._steps: list[int] = []  # the iteration of each waiting image
        self.pool: PseudoLabelPool | None = None
        self._sampling: dict[str, torch.Tensor] = {}  # of the generation under way, see `diagnostics`

    def _prepare(self, runner: Any) -> PseudoLabelPool:
        """The pool, made when it is first needed (the loader does not exist before)."""
        if self.pool is None:
            labeled, unlabeled = runner.train_dataloader.dataset.datasets
            self.pool = PseudoLabelPool(len(unlabeled))
            self._position = {unlabeled.get_data_info(index)["img_id"]: index for index in range(len(unlabeled))}
            num_classes = len(labeled.metainfo["classes"])
            present = [np.unique(labeled.get_cat_ids(index)).astype(np.int64) for index in range(len(labeled))]
            self._labeled_with_class = np.bincount(np.concatenate(present), minlength=num_classes)
            self._num_labeled = len(labeled)
        return self.pool

    def before_train(self, runner: Any) -> None:
        """Make the pool."""
        self._prepare(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the iteration's pseudo labels; at a boundary, set the next generation's repeat factors."""
        model = model_of(runner)
        done = runner.iter + 1
        if model.view is not None and runner.iter >= self.warmup:
            found = model.view.pseudo
            labels = torch.cat([each.labels for each in found])
            margins = torch.cat([each.scores for each in found]) - model.view.thresholds[labels]
            images = [self._position[sample.img_id] for sample in model.view.samples]
            self._steps += [runner.iter] * len(images)
            self._waiting.append((images, [len(each) for each in found], labels, margins))
        boundary = is_boundary(done, self.burn_in, runner.max_iters, self.generations)
        if boundary or done % FLUSH == 0:
            self._flush(runner)
        if boundary and self.sweep and runner.iter >= self.warmup:
            self._refill(runner)
        if boundary:
            self._start_generation(runner, done)

    def diagnostics(self) -> dict[str, torch.Tensor]:
        """(n,) factors S_i of eq. (10), and the mean occurrences per epoch of D_u of images with each class."""
        return self._sampling

    def passes_after(self, runner: Any, done: int) -> int:
        """Inference passes over D_u still to come after `done` iterations."""
        done = max(done, self.warmup)  # none before pseudo labels enter the pool
        return boundaries_after(done, self.burn_in, runner.max_iters, self.generations) if self.sweep else 0

    def _flush(self, runner: Any) -> None:
        """Bring the waiting pseudo labels of all ranks into the pool, in the order of visits."""
        mine = None
        if self._waiting:
            images = np.concatenate([np.asarray(entry[0], dtype=np.int64) for entry in self._waiting])
            counts = np.concatenate([np.asarray(entry[1], dtype=np.int64) for entry in self._waiting])
            labels = torch.cat([entry[2] for entry in self._waiting]).cpu().numpy()
            margins = torch.cat([entry[3] for entry in self._waiting]).float().cpu().numpy()
            kept = margins >= 0
            owners = np.repeat(np.arange(len(images)), counts)[kept]
            counts = np.bincount(owners, minlength=len(images))
            mine = (np.asarray(self._steps), images, counts, labels[kept], margins[kept])
            self._waiting, self._steps = [], []
        pool = self._prepare(runner)
        parts = [part for part in all_gather_object(mine) if part is not None]
        if parts:
            pool.add(*in_order(parts))

    def _refill(self, runner: Any) -> None:
        """Fill the pool with what the teacher finds on every unlabelled image now, above today's thresholds."""
        model, pool = model_of(runner), self._prepare(runner)
        found = detect_unlabeled(runner, model.semi_train_cfg.pseudo_label_initial_score_thr)
        margins = found.score - model.view.thresholds.cpu().numpy()[found.label]
        kept = margins >= 0
        counts = np.bincount(found.image[kept], minlength=pool.num_images)
        pool.add(np.arange(pool.num_images), counts, found.label[kept], margins[kept])

    def _start_generation(self, runner: Any, done: int) -> None:
        pool = self._prepare(runner)
        generation = generation_of(done, self.burn_in, runner.max_iters, self.generations)
        classes, factors = generation_factors(
            pool,
            self._labeled_with_class,
            self._num_labeled,
            self.gamma * generation / self.generations,
            self.count_only_pseudo,
        )
        runner.train_dataloader.sampler.repeat(1, factors, done + READ_AHEAD)
        self._sampling = {
            "class_factors": torch.from_numpy(classes),
            "copies": torch.from_numpy(class_copies(pool, factors, len(classes))),
        }
        copies = np.ceil(factors)
        runner.logger.info(
            f"CrS generation {generation}: pool covers {pool.coverage:.1%} of D_u, {(copies > 1).mean():.1%} of the "
            f"images are repeated, up to {copies.max():.0f} times, {copies.sum():.0f} per epoch"
        )
        runner.message_hub.update_scalar("train/crs_coverage", pool.coverage)
        runner.message_hub.update_scalar("train/crs_repeated", float((copies > 1).mean()))

    def before_checkpoint(self, runner: Any) -> None:
        """Complete the pool on all ranks."""
        self._flush(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the pool, which is complete on all ranks whenever a checkpoint is written, into the checkpoint."""
        checkpoint["pool"] = self._prepare(runner).state()
        checkpoint["sampling"] = self._sampling

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the pool from a checkpoint that is resumed."""
        if runner._resume and "pool" in checkpoint:
            self._prepare(runner).restore(checkpoint["pool"])
            self._sampling = checkpoint["sampling"]


def in_order(parts: Sequence[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    """Visits of several ranks as one process would have made them: by iteration, then by rank.

    Args:
        parts: for each rank (V,) iterations, (V,) images, (V,) numbers of pseudo labels, and visit after visit their
            classes and margins.

    Returns:
        Images, numbers, classes and margins of all visits.
    """
    steps, images, counts, labels, margins = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(steps, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = np.argsort(place[np.repeat(np.arange(len(order)), counts)], kind="stable")
    return images[order], counts[order], labels[rows], margins[rows]
