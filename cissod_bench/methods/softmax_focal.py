"""Softmax focal loss without alpha, and its derivative, in closed form and without overflow.

`f = -(1 - p_t)^gamma * log p_t` on the softmax over n + 1 classes, background included as an ordinary class (Lin et
al., ICCV 2017, in the softmax form of Unbiased Teacher). gamma = 0 is cross entropy.
"""

import torch
from torch import Tensor


def softmax_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Loss of each sample.

    Args:
        logits: (N, n + 1).
        labels: (N,) int64 in [0, n].
        gamma: >= 0.

    Returns:
        (N,) values >= 0, in the logits' precision.
    """
    log_target = logits.log_softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
    if gamma == 0:
        return -log_target
    # Below gamma = 1 the slope of miss ** gamma at 0 is infinite; times log p = 0 it would be NaN.
    return -(_miss(log_target).clamp(min=torch.finfo(log_target.dtype).tiny) ** gamma) * log_target


def focal_slope(log_target: Tensor, gamma: float) -> Tensor:
    """`K(p) = (1 - p)^gamma - gamma * p * (1 - p)^(gamma - 1) * log p` for log p = `log_target`.

    The derivative of the loss is `K(p_t) * p_i` on logit i of another class and `-K(p_t) * (1 - p_t)` on the own one;
    cross entropy has K = 1.
    """
    if gamma == 0:
        return torch.ones_like(log_target)
    miss = _miss(log_target)
    # log p / (1 - p) goes to -1 as p goes to 1, where the quotient itself is 0 / 0.
    quotient = torch.where(miss > 0, log_target / miss.clamp(min=torch.finfo(miss.dtype).tiny), -torch.ones_like(miss))
    return miss**gamma * (1 - gamma * log_target.exp() * quotient)


def _miss(log_target: Tensor) -> Tensor:
    """1 - p without cancellation."""
    return -torch.expm1(log_target)
