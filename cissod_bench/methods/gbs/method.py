"""gbs, the proposed method: gradient-based sampling (paper sec. 3). Each of its three parts is an option.

* GbR, gradient-based reweighting: `gbr.py` on `gradient_matrix.py`, eqs. (1)-(8);
* GbT, gradient-based thresholding: `gbt.py`, eq. (9);
* CrS, class-rebalancing sampling: repeat factor sampling of D_l (`ssod/data/repeat_factors.py`) and, at each
  generation, repeat factors of D_u from pseudo labels (`crs.py`, `crs_hook.py`), eqs. (10)-(11).

Defaults follow the paper where it is explicit and the authors' release where it is silent.
"""

from typing import Annotated, Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold
from cissod_bench.methods.gbs.crs_hook import RebalancingHook
from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.methods.gbs.gbt import ClassThreshold
from cissod_bench.methods.option_types import MOST, Average, NotNegative, UnitInterval
from cissod_bench.methods.rank_threshold import rank_threshold
from cissod_bench.ssod.component import component

PAPER_ITERATIONS = 180_000
SmallStep = Annotated[float, msgspec.Meta(gt=0, le=0.05)]
Threshold = Annotated[float, msgspec.Meta(ge=0.5, le=1)]
Generations = Annotated[float, msgspec.Meta(ge=1, le=MOST)]
Smallest = Annotated[float, msgspec.Meta(gt=0, le=1)]
Largest = Annotated[float, msgspec.Meta(ge=1, le=MOST)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of gbs."""

    gamma: NotNegative = 1.0
    """Focusing parameter of the softmax focal loss; the paper gives none, the release uses 1; 0 is cross entropy."""
    gbr: bool = True
    """Weigh the losses by the balanced weights."""
    beta: UnitInterval = 0.5
    """Exponent of the weights on labelled samples (paper 0.5; release 0.8 on Objects365 and LVIS)."""
    eta_g: Average = 0.9995
    """Coefficient of the moving average of the gradient matrix (paper sec. 4.2)."""
    rho: SmallStep | None = None
    """Step of the class logits per iteration; 1 / (n + 1), at most 0.05, by default: the time constant that the
    release's optimiser gives them. Above 2 w_bg / (n + 1) the iteration cycles, so shorter runs get no longer steps."""
    w_min: Smallest = 1 / 3
    """Smallest target and sample weight (release; not in the paper)."""
    w_max: Largest = 5.0
    """Largest target and sample weight (release); the target of a class that has never been seen."""
    normalize: bool = True
    """Divide sample weights by their moving average (release; not in the paper)."""
    gbr_warmup: UnitInterval = 8_000 / 180_000
    """Part of the run before the weights move (release)."""
    threshold: Literal["fixed", "score", "gradient", "gbt", "labelmatch"] = "gbt"
    """Threshold policy of pseudo labels (Table 5)."""
    theta: Threshold | None = None
    """The threshold that the policies adapt; the detector preset's by default (paper: 0.9)."""
    theta_min: Threshold = 0.5
    """Lower bound of "score", "gradient" and "gbt", at most theta; below 0.5 there are no pseudo labels (release)."""
    eta_p: Average = 0.9995
    """Coefficient of the moving average of scores in theta^c (paper sec. 4.2)."""
    cold_start: Literal["mean", "count"] = "mean"
    """How theta^c treats classes with few detections so far; "count" is the release's way."""
    threshold_warmup: UnitInterval = 12_000 / 180_000
    """Part of the run after the burn-in with the fixed threshold, and without pseudo labels for CrS (release). For
    `threshold=labelmatch` it is what `warmup` is for labelmatch, a part of the whole run."""
    crs: bool = True
    """Repeat labelled images by RFS and unlabelled images by their pseudo labels."""
    crs_gamma: NotNegative | None = None
    """Range coefficient gamma of eq. (10); the task's by default (0.5 on COCO, 0.05 on Objects365 and LVIS)."""
    generations: Generations = 10
    """Number N_t of generations (paper sec. 4.2); not whole where the release's, of 16,000 iterations, do not fit."""
    count_only_pseudo: bool = False
    """Count only unlabelled images with pseudo labels in eq. (10), as the release does, instead of all."""
    sweep: bool = False
    """At each generation, take the pseudo labels for CrS from a teacher inference pass over all unlabelled images,
    not from its most recent visits (release); for short runs, which visit few images in a generation."""


def configure(context: Context, options: Options) -> MethodConfig:
    """The components that the options select."""
    budget = PAPER_ITERATIONS / context.iterations
    with_pseudo_labels = context.iterations - context.burn_in
    threshold_warmup = context.burn_in + round(options.threshold_warmup * with_pseudo_labels)
    if options.threshold == "fixed":
        threshold = fixed_threshold(context, options.theta)
    elif options.threshold == "labelmatch":
        # Not below 0.5, like the other policies, where there are no pseudo labels; CrS takes the distance from it.
        threshold = rank_threshold(context, options.theta, options.threshold_warmup, lowest=0.5)
    else:
        theta = context.theta if options.theta is None else options.theta
        if options.theta_min > theta:
            raise UserError(f"theta_min={options.theta_min:g} is above theta={theta:g}: give a lower bound.")
        threshold = component(
            ClassThreshold,
            policy=options.threshold,
            theta=theta,
            bounds=(options.theta_min, theta),
            eta=options.eta_p,
            warmup=threshold_warmup,
            cold_start=options.cold_start,
        )
    rebalancing = component(
        RebalancingHook,
        gamma=context.crs_gamma if options.crs_gamma is None else options.crs_gamma,
        generations=options.generations,
        burn_in=context.burn_in,
        warmup=threshold_warmup,
        count_only_pseudo=options.count_only_pseudo,
        sweep=options.sweep,
    )
    return MethodConfig(
        loss_cls=component(
            GradientReweightedFocalLoss,
            num_classes=context.num_classes,
            gamma=options.gamma,
            beta=options.beta,
            unsup_weight=context.unsup_weight,
            eta=options.eta_g,
            rho=min(0.05, 1 / (context.num_classes + 1)) if options.rho is None else options.rho,
            warmup=round(options.gbr_warmup * context.iterations),
            reweight=options.gbr,
            bounds=(options.w_min, options.w_max),
            normalize=options.normalize,
            mean_rate=min(0.025, 0.001 * max(1.0, budget)),
        ),
        threshold=threshold,
        labeled_repeat=context.rfs_threshold if options.crs else None,
        hooks=[rebalancing] if options.crs else [],
    )
