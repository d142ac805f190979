"""The gradient matrix G of eqs. (1) and (2) of the paper, in closed form and one matrix product.

Orientation and signs are the paper's: row i is a logit, column k the class of the samples, and entries are dL/dx. So
G_ii <= 0 (samples of class i raise its logit), G_ik >= 0 (samples of class k lower it), and each column sums to zero,
because a softmax loss does not change when all logits move together.
"""

import torch
from torch import Tensor

from cissod_bench.methods.softmax_focal import focal_slope
from cissod_bench.ssod.one_hot import one_hot


def gradient_matrix(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Sum over samples of `weights_j * d f(x_j) / d x_j`, by logit and by class of the sample.

    Args:
        logits: (N, n + 1), background last; detached by this function.
        labels: (N,) int64 in [0, n].
        weights: (N,) label weights l_j >= 0.
        gamma: focusing parameter of the softmax focal loss, 0 for cross entropy.

    Returns:
        (n + 1, n + 1) matrix G, float32 or better; a class without samples has a zero column.
    """
    logits = logits.detach()
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    with torch.autocast(logits.device.type, enabled=False):
        log_scores = logits.log_softmax(dim=-1)
        log_target = log_scores.gather(1, labels[:, None]).squeeze(1)
        slope = weights.to(logits.dtype) * focal_slope(log_target, gamma)
        hot = one_hot(labels, logits.shape[1], logits.dtype)
        matrix = log_scores.exp().T @ (hot * slope[:, None])
        own = (slope * torch.expm1(log_target)) @ hot
        return matrix.diagonal_scatter(own)


def jacobi_targets(
    matrix: Tensor,
    weights: Tensor,
    seen: Tensor,
    *,
    lowest: float = 1 / 3,
    highest: float = 5.0,
    background_highest: float = 1.0,
) -> Tensor:
    """Target weights of one Jacobi step, eq. (6), clamped so that their logarithm in eq. (7) exists.

    A class that has not been seen has no equation yet: its target is the upper bound, and it stays
    out of the sum that gives the background its weight, which would otherwise be driven below zero.

    Args:
        matrix: (n + 1, n + 1) moving average of G.
        weights: (n + 1,) current weights w.
        seen: (n + 1,) bool, classes with samples in the average. A class that is seen and fitted to the last digit, so
            that its own gradient is 0, is treated as one that is not.
        lowest, highest: bounds of all targets; infinite bounds give the plain Jacobi step.
        background_highest: upper bound of the background's target.

    Returns:
        (n + 1,) targets; the background's is n + 1 minus the sum of the others before clamping, eq. (4).
    """
    own = -matrix.diagonal()
    negative = matrix @ weights - matrix.diagonal() * weights
    seen = seen & (own > 0)
    targets = negative / torch.where(seen, own, torch.ones_like(own))
    total = matrix.shape[0]
    background = total - torch.where(seen, targets, torch.zeros_like(targets))[:-1].sum()
    targets = torch.where(seen, targets, torch.full_like(targets, highest)).clamp(lowest, highest)
    return torch.cat([targets[:-1], background.clamp(lowest, background_highest)[None]])


def gradient_ratio(matrix: Tensor, weights: Tensor) -> Tensor:
    """(n + 1,) positive over negative gradient of each class under the weights; 1 where eq. (3) holds."""
    negative = matrix @ weights - matrix.diagonal() * weights
    return -matrix.diagonal() * weights / negative


def softmax_weights(class_logits: Tensor, seen: Tensor, highest: float = 5.0) -> Tensor:
    """Class weights of eq. (5), with sum n + 1 over the background and the classes that have been seen.

    A class without gradients has no part in eqs. (3) and (4), so it takes no share of the sum: with one, all others
    would be scaled down against their targets, and their gradient ratios would settle below 1.

    Args:
        class_logits: (n + 1,) a_i.
        seen: (n + 1,) bool, see `jacobi_targets`.
        highest: weight of a class that has not been seen.
    """
    counted = torch.cat([seen[:-1], torch.ones_like(seen[-1:])])
    weights = len(class_logits) * class_logits.masked_fill(~counted, -torch.inf).softmax(dim=0)
    return torch.where(counted, weights, torch.full_like(weights, highest))
