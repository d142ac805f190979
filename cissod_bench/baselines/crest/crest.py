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
* RFS runs over labelled and joined images together; joined images stay unlabelled ones too, as in the original;
* generations share the run, and networks are kept (`reinit` starts each generation with a new one, as in the original:
  a tenth of the run is too short for that);
* boxes come from an inference pass with the test pipeline, as in the original, not from training-time outputs;
* a class without labelled boxes counts as one with one; classes with equal counts rank in label order;
* distributions are aligned over foreground classes, and the classifier keeps its word on objectness (as in `daso`).
"""

import msgspec
import numpy as np

from cissod_bench.baselines.crest.alignment import DistributionAlignment
from cissod_bench.baselines.crest.selection import keep_rates
from cissod_bench.baselines.crest.self_training import SelfTrainingHook
from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import Count, NotNegative, UnitInterval
from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.ignored_regions import NOT_BACKGROUND
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead


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


def configure(context: Context, options: Options) -> MethodConfig:
    """Generations of self-training, RFS; distribution alignment as an option."""
    theta = context.theta if options.theta is None else options.theta
    repeat = repeat_threshold(context, options.threshold)
    generations = {"generations": options.generations, "burn_in": context.burn_in}
    alignment = component(
        DistributionAlignment,
        labeled_boxes=context.labeled_boxes,
        iterations=context.iterations,
        least=options.least_alignment,
        window=options.window,
        **generations,
    )
    self_training = component(
        SelfTrainingHook,
        rates=keep_rates(np.asarray(context.labeled_boxes), options.alpha).tolist(),
        theta=theta if options.pick_threshold is None else options.pick_threshold,
        labeled_repeat=repeat,
        ignore_unkept=options.ignore_unkept,
        reinit=options.reinit,
        **generations,
    )
    return MethodConfig(
        bbox_head=component(ClassScoresBBoxHead) if options.align else {},
        detector=NOT_BACKGROUND if options.ignore_unkept else {},
        threshold=fixed_threshold(context, options.theta),
        refinement=alignment if options.align else None,
        labeled_repeat=repeat,
        hooks=[self_training],
    )
