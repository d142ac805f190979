"""CReST's generations in training: at each boundary, confident unlabelled images are promoted to labelled ones."""

from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.hooks import Hook

from cissod_bench.baselines.crest.selection import pick, union_factors
from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import READ_AHEAD
from cissod_bench.ssod.generations import boundaries_after, generation_of, is_boundary
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.randomness import derived_seed, preserved_randomness
from cissod_bench.ssod.teacher_inference import detect_unlabeled

SMALLEST = 1.0
"""Pixels of the original image below which a box's width or height makes it no object."""


class SelfTrainingHook(Hook):
    """At the end of each generation but the last, promotes confident unlabelled images to labelled ones.

    The sampler holds everything that makes up a generation, and saves it in checkpoints.

    Args:
        generations: number of equal generations after the burn-in.
        burn_in: first iterations, which have no pseudo labels.
        rates: (n,) part of the predictions of each class to keep, see `keep_rates`.
        theta: score above which a box can be picked.
        labeled_repeat: oversampling threshold of repeat factor sampling over labelled and promoted images.
        ignore_unkept: boxes of a promoted image that were not picked are ignored in training instead of background.
        reinit: start every generation with a new network.
    """

    def __init__(
        self,
        generations: int,
        burn_in: int,
        rates: list[float],
        theta: float,
        labeled_repeat: float,
        ignore_unkept: bool,
        reinit: bool,
    ) -> None:
        self.generations, self.burn_in, self.rates = generations, burn_in, np.asarray(rates)
        self.theta, self.labeled_repeat = theta, labeled_repeat
        self.ignore_unkept, self.reinit = ignore_unkept, reinit

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Begin a generation where one is due."""
        done = runner.iter + 1
        if is_boundary(done, self.burn_in, runner.max_iters, self.generations):
            self._begin(runner, done)

    def passes_after(self, runner: Any, done: int) -> int:
        """Inference passes over D_u still to come after `done` iterations."""
        return boundaries_after(done, self.burn_in, runner.max_iters, self.generations)

    def _begin(self, runner: Any, done: int) -> None:
        generation = generation_of(done, self.burn_in, runner.max_iters, self.generations)
        initial = model_of(runner).semi_train_cfg.pseudo_label_initial_score_thr
        found = detect_unlabeled(runner, min(initial, self.theta) if self.ignore_unkept else self.theta)
        found, kept = self._pick(found)
        members = np.isin(found.image, found.image[kept]) if self.ignore_unkept else kept
        labels = PromotedLabels(found.rows(members), ~kept[members])
        labeled, unlabeled = runner.train_dataloader.dataset.datasets
        classes = [labeled.get_cat_ids(index) for index in range(len(labeled))]
        factors = union_factors(classes, len(unlabeled), found.rows(kept), self.labeled_repeat)
        runner.train_dataloader.sampler.repeat(0, factors, done + READ_AHEAD, labels)
        if self.reinit:
            renew(runner, generation)
        self._report(runner, generation, found, kept, factors[len(labeled) :])

    def _pick(self, found: PseudoBoxes) -> tuple[PseudoBoxes, np.ndarray]:
        """Boxes of a size that can be trained on, and which of them are kept."""
        found = found.rows(np.min(found.box[:, 2:] - found.box[:, :2], axis=1) >= SMALLEST)
        kept = np.zeros(len(found), dtype=bool)
        confident = np.flatnonzero(found.score > np.float32(self.theta))
        kept[confident] = pick(found.label[confident], found.score[confident], self.rates)
        return found, kept

    def _report(self, runner: Any, generation: int, found: PseudoBoxes, kept: np.ndarray, factors: np.ndarray) -> None:
        confident = np.bincount(found.label[found.score > np.float32(self.theta)], minlength=len(self.rates))
        picked = np.bincount(found.label[kept], minlength=len(self.rates))
        runner.logger.info(
            f"CReST generation {generation}: {picked.sum()} of {confident.sum()} boxes above {self.theta:g} are kept, "
            f"{(factors > 0).sum()} of {len(factors)} unlabelled images join D_l; kept by class {picked.tolist()} "
            f"of {confident.tolist()}"
        )
        runner.message_hub.update_scalar("train/crest_boxes", int(picked.sum()))
        runner.message_hub.update_scalar("train/crest_images", int((factors > 0).sum()))


def renew(runner: Any, generation: int) -> None:
    """Give student and teacher new weights, the same on all ranks, and the optimiser no memory of the old ones."""
    model = model_of(runner)
    with preserved_randomness():
        torch.manual_seed(derived_seed(runner.seed, "generation", generation))
        new = MODELS.build(runner.cfg.model.detector)
        new.init_weights()
    model.student.load_state_dict(new.state_dict())
    model.teacher.load_state_dict(new.state_dict())
    runner.optim_wrapper.optimizer.state.clear()
