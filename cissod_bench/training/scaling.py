"""What changes in a recipe when a step sees k times as many images as the recipe was tuned for.

* SGD: the learning rate times k (linear scaling rule, Goyal et al., 2017). Shown to hold for detectors up to k = 16
  with warm-up (Peng et al., 2018: 256 images instead of 16); beyond, a run is refused.
* Adam and AdamW: the learning rate times sqrt(k), 1 - beta times k, epsilon over sqrt(k) (square root scaling rule,
  Malladi et al., 2022). It ends where 1 - beta would reach one; such a run is refused.
* Lengths in iterations (schedule, steps, warm-up) over k, so that as many images are seen (Goyal et al., 2017).
* The teacher's decay to the power of k, so that its memory is as long in images (Busbridge et al., 2023).

Constants that a method has per iteration (gbs: eta, rho) stay as they are; runs with another number of images in a step
do not stand in one table.
"""

from collections.abc import Mapping
from typing import Any

from cissod_bench.errors import UserError

LARGEST = 16.0
"""Largest k for which linear scaling was shown for detectors."""


def scaled_optimizer(optimizer: Mapping[str, Any], k: float) -> dict[str, Any]:
    """An mmengine optimizer configuration for steps of k times as many images.

    Raises:
        UserError: there is no rule for this optimiser, or it does not hold for this k.
    """
    kind, rate = optimizer["type"], optimizer["lr"]
    if k == 1:
        return dict(optimizer)
    if kind == "SGD":
        if k > LARGEST:
            raise UserError(
                f"{k:g} times as many images in a step as the recipe's: linear scaling of SGD's learning rate is shown "
                f"to hold up to {LARGEST:g} times (Peng et al., 2018). Use fewer processes."
            )
        return {**optimizer, "lr": rate * k}
    if kind in ("Adam", "AdamW"):
        betas, eps = optimizer.get("betas", (0.9, 0.999)), optimizer.get("eps", 1e-8)
        scaled = tuple(round(1 - k * (1 - beta), 9) for beta in betas)
        if min(scaled) <= 0:
            raise UserError(
                f"{k:g} times as many images in a step as the recipe's: the square root scaling rule of {kind} "
                f"(Malladi et al., 2022) ends where 1 - beta times k reaches one, beta is {min(betas)}. "
                "Use fewer processes."
            )
        return {**optimizer, "lr": rate * k**0.5, "betas": scaled, "eps": eps / k**0.5}
    raise UserError(f"No rule says how {kind} scales with the images in a step. Use the recipe's number of processes.")


def rule(optimizer: Mapping[str, Any]) -> str:
    """The rule's name, for the plan."""
    return "scaled linearly" if optimizer["type"] == "SGD" else "scaled with the square root"


def scaled_length(iterations: int, k: float) -> int:
    """Iterations that see as many images with k times as many in a step; rounded up."""
    return iterations if k == 1 else max(1, -int(-iterations // k))


def scaled_momentum(momentum: float, k: float) -> float:
    """Part of the student in each update of the teacher: 1 - (1 - momentum)^k."""
    return momentum if k == 1 else 1 - (1 - momentum) ** k
