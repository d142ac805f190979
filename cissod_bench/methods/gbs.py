"""gbs, the proposed method: gradient-based sampling (paper sec. 3), all three parts of it as options.

* GbR, gradient-based reweighting: `reweighting.py` on `gradient_matrix.py`, eqs. (1)-(8);
* GbT, gradient-based thresholding: `thresholds.py`, eq. (9);
* CrS, class-rebalancing sampling: repeat factor sampling of D_l (`sampling.py`) and, at each generation, repeat
  factors of D_u from pseudo labels (`rebalancing.py`), eqs. (10)-(11).

Defaults follow the paper where it is explicit and the authors' release where it is silent.
"""

from typing import Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.methods.method import Parts, Setting

PAPER_ITERATIONS = 180_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of gbs."""

    gamma: float = 1.0
    """Focusing parameter of the softmax focal loss; the paper gives none, the release uses 1; 0 is cross entropy."""
    gbr: bool = True
    """Weigh the losses by the balanced weights."""
    beta: float = 0.5
    """Exponent of the weights on labelled samples (paper 0.5; release 0.8 on Objects365 and LVIS)."""
    eta_g: float = 0.9995
    """Coefficient of the moving average of the gradient matrix (paper sec. 4.2)."""
    rho: float | None = None
    """Step of the class logits per iteration; 1 / (n + 1), at most 0.05, by default: the time constant that the
    release's optimiser gives them. Above 2 w_bg / (n + 1) the iteration cycles, so shorter runs get no longer steps."""
    normalize: bool = True
    """Divide sample weights by their moving average (release; not in the paper)."""
    gbr_warmup: float = 8_000 / 180_000
    """Part of the run before the weights move (release)."""
    threshold: Literal["fixed", "score", "gradient", "gbt"] = "gbt"
    """Threshold policy of pseudo labels (Table 5)."""
    theta: float = 0.9
    """The threshold that the policies adapt (paper sec. 4.2)."""
    eta_p: float = 0.9995
    """Coefficient of the moving average of scores in theta^c (paper sec. 4.2)."""
    cold_start: Literal["mean", "count"] = "mean"
    """How theta^c treats classes with few detections so far; "count" is the release's way."""
    threshold_warmup: float = 12_000 / 180_000
    """Part of the run with the fixed threshold, and without pseudo labels for CrS (release)."""
    crs: bool = True
    """Repeat labelled images by RFS and unlabelled images by their pseudo labels."""
    crs_gamma: float | None = None
    """Range coefficient gamma of eq. (10); the task's by default (0.5 on COCO, 0.05 on Objects365 and LVIS)."""
    generations: int = 10
    """Number N_t of generations (paper sec. 4.2)."""
    count_only_pseudo: bool = False
    """Count only unlabelled images with pseudo labels in eq. (10), as the release does, instead of all."""


def check(options: Options) -> None:
    """Hold the options against their ranges.

    Raises:
        UserError: an option outside its range.
    """
    for name, value, lowest, highest in (
        ("gamma", options.gamma, 0.0, 10.0),
        ("beta", options.beta, 0.0, 1.0),
        ("eta_g", options.eta_g, 0.0, 1.0),
        ("eta_p", options.eta_p, 0.0, 1.0),
        ("rho", options.rho or 0.0, 0.0, 0.05),
        ("theta", options.theta, 0.5, 1.0),
        ("gbr_warmup", options.gbr_warmup, 0.0, 1.0),
        ("threshold_warmup", options.threshold_warmup, 0.0, 1.0),
        ("crs_gamma", options.crs_gamma or 0.0, 0.0, 10.0),
        ("generations", options.generations, 1, 1000),
    ):
        if not lowest <= value <= highest:
            raise UserError(f"Option {name}={value} of method 'gbs' is outside [{lowest:g}, {highest:g}].")


def parts(setting: Setting, options: Options) -> Parts:
    """The parts that the options ask for."""
    check(options)
    budget = PAPER_ITERATIONS / setting.iterations
    threshold_warmup = round(options.threshold_warmup * setting.iterations)
    if options.threshold == "fixed":
        threshold = {"type": "FixedThreshold", "value": options.theta}
    else:
        threshold = {
            "type": "ClassThreshold",
            "policy": options.threshold,
            "theta": options.theta,
            "bounds": (0.5, options.theta),
            "eta": options.eta_p,
            "warmup": threshold_warmup,
            "cold_start": options.cold_start,
        }
    return Parts(
        loss_cls={
            "type": "GradientReweightedFocalLoss",
            "num_classes": setting.num_classes,
            "gamma": options.gamma,
            "beta": options.beta,
            "unsup_weight": setting.unsup_weight,
            "eta": options.eta_g,
            "rho": min(0.05, 1 / (setting.num_classes + 1)) if options.rho is None else options.rho,
            "warmup": round(options.gbr_warmup * setting.iterations),
            "reweight": options.gbr,
            "normalize": options.normalize,
            "mean_rate": min(0.05, 0.002 * max(1.0, budget)),
        },
        threshold=threshold,
        labeled_repeat=setting.rfs_threshold if options.crs else None,
        rebalancing={
            "gamma": setting.crs_gamma if options.crs_gamma is None else options.crs_gamma,
            "generations": options.generations,
            "warmup": threshold_warmup,
            "count_only_pseudo": options.count_only_pseudo,
        }
        if options.crs
        else None,
    )
