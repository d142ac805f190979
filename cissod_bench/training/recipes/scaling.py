"""Scaling rules for steps with k times as many images as the recipe was tuned for.

* SGD: the learning rate times k (linear scaling rule, Goyal et al., 2017). Shown to hold for detectors up to k = 16
  with warm-up (Peng et al., 2018: 256 images instead of 16); larger k is refused.
* Adam and AdamW: the learning rate times sqrt(k), 1 - beta times k, epsilon over sqrt(k) (square root scaling rule,
  Malladi et al., 2022). k for which 1 - beta would reach one is refused.
* Lengths in iterations (schedule, steps, warm-up) divided by k, so that a run sees as many images (Goyal et al., 2017).
* The teacher's decay to the power of k, so that its memory spans as many images (Busbridge et al., 2023).

Per-iteration constants of a method (gbs: eta, rho) do not scale; runs with different numbers of images per step are not
comparable.
"""

from collections.abc import Mapping
from typing import Any

from cissod_bench.errors import UserError

LARGEST = 16.0
"""Largest k for which linear scaling was shown for detectors."""


def scaled_optimizer(optimizer: Mapping[str, Any], k: float) -> dict[str, Any]:
    """Scale mmengine's optimizer configuration for steps of k times as many images.

    Raises:
        UserError: no rule is known for the optimizer, or it does not hold for this k.
    """
    kind, rate = optimizer["type"], optimizer["lr"]
    if k == 1:
        return dict(optimizer)
    if kind == "SGD":
        if k > LARGEST:
            raise UserError(
                f"A step has {k:g} times as many images as in the recipe, but linear scaling of SGD's learning rate is "
                f"only known to hold up to {LARGEST:g} times (Peng et al., 2018). Use fewer images."
            )
        return {**optimizer, "lr": rate * k}
    if kind in ("Adam", "AdamW"):
        betas, eps = optimizer.get("betas", (0.9, 0.999)), optimizer.get("eps", 1e-8)
        scaled = tuple(round(1 - k * (1 - beta), 9) for beta in betas)
        if min(scaled) <= 0:
            raise UserError(
                f"A step has {k:g} times as many images as in the recipe, but the square root scaling rule of {kind} "
                f"(Malladi et al., 2022) needs k * (1 - beta) < 1, and beta is {min(betas)}. Use fewer images."
            )
        return {**optimizer, "lr": rate * k**0.5, "betas": scaled, "eps": eps / k**0.5}
    raise UserError(f"No scaling rule is known for {kind}. Use the number of processes of the recipe.")


def rule(optimizer: Mapping[str, Any]) -> str:
    """Name of the rule, for the plan."""
    return "scaled linearly" if optimizer["type"] == "SGD" else "scaled with the square root"


def scaled_length(iterations: int, k: float) -> int:
    """Number of iterations that sees as many images with k times as many per step, rounded up."""
    return iterations if k == 1 else max(1, -int(-iterations // k))


def scaled_momentum(momentum: float, k: float) -> float:
    """Weight of the student in each teacher update: 1 - (1 - momentum)^k."""
    return momentum if k == 1 else 1 - (1 - momentum) ** k
