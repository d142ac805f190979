"""CReST (Wei et al., CVPR 2021) on Soft Teacher with RFS; row "CReST" of the paper's Tables 1-3.

Self-training in generations. At the end of each, the teacher labels all unlabelled images, and of what it predicts as a
class only the best join the labelled images of the next generation: all of the rarest class, whose pseudo labels are
the most precise, and (N_min / N_max)^alpha of the most frequent one. The picks of a generation replace those of the one
before. CReST+ also aligns the distribution of pseudo labels with that of the labelled classes, less and less.

The rate of a class is that of the class with the reverse *rank* of frequency; both public codes take the reverse index,
which is the same for classes sorted by frequency alone. Both cut the number of kept boxes off, and so do we.

Our reading for detection, which no source describes; the paper only says "10 generations" and RFS as sampling:
* what is picked are boxes above Soft Teacher's threshold, with counts N_c of labelled boxes; an image with a picked box
  joins with its picked boxes as ground truth, at the full labelled loss, and all else in it is background, as it is
  for the paper's authors, who blame the resampling of images; `ignore_unkept` leaves the unpicked boxes undecided;
* RFS runs over labelled and joined images together; joined images go on as unlabelled ones too, as in the original;
* generations share the run, and networks go on (`reinit` starts each generation with a new one, as in the original:
  a tenth of the run is too short for that);
* boxes come from a sweep with the test pipeline, as in the original, not from the teacher's training-time outputs;
* a class without labelled boxes counts as one with one; classes with equal counts rank in label order;
* distributions are aligned over foreground classes, and the classifier keeps its word on objectness (as in `daso`).
"""

import msgspec
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.dist import all_reduce
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor, nn

from cissod_bench.methods.base import Parts, Setting, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import Count, NotNegative, UnitInterval
from cissod_bench.ssod.data.pseudo_boxes import FoundBoxes
from cissod_bench.ssod.data.repeat_factors import repeat_factors
from cissod_bench.ssod.generations import generation_of
from cissod_bench.ssod.refinement import Features

IGNORE = {"assigner": {"ignore_iof_thr": 0.5}}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of CReST."""

    generations: Count = 10
    """Number G of generations (paper sec. 4.2)."""
    alpha: NotNegative = 1 / 3
    """Exponent of the rates at which predictions are kept; 0 keeps all (original: 1/3)."""
    pick_threshold: UnitInterval | None = None
    """Score above which boxes can be picked; `theta` by default."""
    ignore_unkept: bool = False
    """Boxes of a joined image that were not picked are neither object nor background, and neither are crowd boxes."""
    reinit: bool = False
    """Start every generation with a new network, at the learning rate that the run has by then (original)."""
    align: bool = False
    """CReST+: progressive distribution alignment of pseudo labels."""
    least_alignment: UnitInterval = 0.5
    """Exponent t_min of the labelled class distribution in the last generation; 1 in the first."""
    window: Count = 128
    """Batches in the mean of predicted class distributions."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled and joined images; the task's by default."""


def parts(setting: Setting, options: Options) -> Parts:
    """Generations of self-training, RFS; distribution alignment if asked for."""
    theta = setting.theta if options.theta is None else options.theta
    repeat = repeat_threshold(setting, options.threshold)
    generations = {"generations": options.generations, "burn_in": setting.burn_in}
    alignment = {
        "type": "DistributionAlignment",
        "labeled_boxes": setting.labeled_boxes,
        "iterations": setting.iterations,
        "least": options.least_alignment,
        "window": options.window,
        **generations,
    }
    self_training = {
        "type": "SelfTrainingHook",
        "rates": keep_rates(np.asarray(setting.labeled_boxes), options.alpha).tolist(),
        "theta": theta if options.pick_threshold is None else options.pick_threshold,
        "labeled_repeat": repeat,
        "ignore_unkept": options.ignore_unkept,
        "reinit": options.reinit,
        **generations,
    }
    return Parts(
        bbox_head={"type": "ClassScoresBBoxHead"} if options.align else {},
        detector={"train_cfg": {"rpn": IGNORE, "rcnn": IGNORE}} if options.ignore_unkept else {},
        threshold=fixed_threshold(setting, options.theta),
        refinement=alignment if options.align else None,
        labeled_repeat=repeat,
        hooks=[self_training],
    )


def keep_rates(labeled_boxes: NDArray[np.integer], alpha: float) -> NDArray[np.float64]:
    """`mu_c = (N_(n+1-r) / N_(1))^alpha` of the class with the r-th most labelled boxes (CReST, eq. 1).

    Args:
        labeled_boxes: (n,) number of labelled boxes of each class in any order; 0 counts as 1.
        alpha: exponent.

    Returns:
        (n,) rates in (0, 1].
    """
    counts = np.maximum(labeled_boxes, 1)
    most_first = np.argsort(-counts, kind="stable")
    rates = np.empty(len(counts))
    rates[most_first] = (counts[most_first[::-1]] / counts.max()) ** alpha
    return rates


def pick(labels: NDArray[np.integer], scores: NDArray[np.floating], rates: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Keep the best `floor(mu_c * P_c)` of the P_c predictions of each class.

    Args:
        labels: (P,) predicted classes.
        scores: (P,) scores; of equal ones the first in the table is the better one.
        rates: (n,) rates mu_c.

    Returns:
        (P,) whether each is kept.
    """
    predicted = np.bincount(labels, minlength=len(rates))
    quota = np.floor(rates * predicted + 1e-9)  # a rate is a power: 0.2 * 5 may lie a rounding error below 1
    order = np.lexsort((-scores, labels))
    place = np.arange(len(labels)) - (np.cumsum(predicted) - predicted)[labels[order]]
    kept = np.empty(len(labels), dtype=bool)
    kept[order] = place < quota[labels[order]]
    return kept


def union_factors(
    labeled: list[list[int]], num_unlabeled: int, joined: FoundBoxes, threshold: float
) -> NDArray[np.float64]:
    """Repeat factors over D_l and the unlabelled images that join it.

    Args:
        labeled: classes of each labelled image.
        num_unlabeled: N_u.
        joined: boxes of the joining images.
        threshold: oversampling threshold t, see `repeat_factors`.

    Returns:
        (N_l + N_u,) factors: 0 for unlabelled images that do not join, else at least 1.
    """
    images, starts = np.unique(joined.image, return_index=True)
    factors = np.zeros(len(labeled) + num_unlabeled)
    members = np.concatenate([np.arange(len(labeled)), len(labeled) + images])
    classes = [each.tolist() for each in np.split(joined.label, starts[1:])] if len(images) else []
    factors[members] = repeat_factors([*labeled, *classes], threshold)
    return factors


def alignment_exponent(generation: int, generations: int, least: float) -> float:
    """`t_g = 1 - (1 - t_min) * g / (G - 1)`: from 1 in the first generation to t_min in the last (CReST, eq. 3)."""
    return 1 - (1 - least) * generation / max(1, generations - 1)


@MODELS.register_module()
class DistributionAlignment(nn.Module):
    """Progressive distribution alignment (CReST, sec. 3.4) of detections' classes; a `Refinement`.

    `p <- normalise(p * (q^t_g + 1e-6) / (m + 1e-6))` with q the labelled class distribution and m the mean of the last
    batches' mean p, which starts uniform.

    Args:
        num_classes: number of foreground classes n.
        channels: not needed.
        labeled_boxes: (n,) number of labelled boxes of each class; 0 counts as 1.
        generations, burn_in, iterations: see `generation_of`.
        least: t_min.
        window: batches in the mean.

    Attributes:
        recent: (window, n) mean p of the last batches with detections, over all ranks.
        taken: () number of batches so far.
    """

    labeled: Tensor
    recent: Tensor
    taken: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        labeled_boxes: tuple[int, ...],
        generations: int,
        burn_in: int,
        iterations: int,
        least: float = 0.5,
        window: int = 128,
    ) -> None:
        super().__init__()
        self.generations, self.burn_in, self.iterations, self.least = generations, burn_in, iterations, least
        counts = torch.tensor(labeled_boxes).clamp(min=1).float()
        self.register_buffer("labeled", counts / counts.sum(), persistent=False)
        self.register_buffer("recent", torch.full((window, num_classes), 1 / num_classes))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))

    def observe(self, teacher: object, inputs: Tensor, labels: list[InstanceData]) -> None:
        """Labelled images say nothing here."""

    @torch.no_grad()
    def refine(self, teacher: object, features: Features, pseudo: list[InstanceData], iteration: int) -> None:
        """Align the pseudo labels with the mean before this batch, then take the batch into it."""
        generation = generation_of(iteration, self.burn_in, self.iterations, self.generations)
        target = self.labeled ** alignment_exponent(generation, self.generations, self.least)
        ratio = (target + 1e-6) / (self.recent.mean(dim=0) + 1e-6)
        total = torch.zeros(len(ratio) + 1, dtype=torch.float32, device=ratio.device)
        for found in pseudo:
            if len(found):
                objectness = 1 - found.class_scores[:, -1:].float()
                linear = found.class_scores[:, :-1].float() / objectness.clamp(min=1e-12)
                total += torch.cat([linear.sum(dim=0), linear.new_tensor([len(found)])])
                aligned = linear * ratio
                best = (aligned / aligned.sum(dim=1, keepdim=True).clamp(min=1e-12)).max(dim=1)
                found.labels, found.scores = best.indices, best.values * objectness[:, 0]
        all_reduce(total)
        new, row = total[-1] > 0, self.taken % len(self.recent)
        mean = total[:-1] / total[-1].clamp(min=1)
        self.recent[row] = torch.where(new, mean, self.recent[row])
        self.taken += new

    def loss(
        self, student: object, features: Features, pseudo: list[InstanceData], iteration: int
    ) -> dict[str, Tensor]:
        """No loss of its own."""
        return {}
