"""Non-maximum suppression of many lists of boxes at once, without a loop over boxes.

torchvision's kernel goes through the boxes of one list one after the other, on one of a GPU's 132 multiprocessors, and
the host waits for each list: with the RPN's 8,800 boxes an image, a fifth of a step. Here the same choice is found as a
fixed point, for all lists together. On a CPU torchvision's own loop is faster and serves.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

ROUNDS = 8
"""Rounds between two looks at whether anything still changes, each of which the host waits for."""
CELLS = 2**25
"""Pairs of boxes looked at together, at most: some tables of 0.1 GiB each."""


def greedy_nms(boxes: Tensor, usable: Tensor, threshold: float) -> Tensor:
    """Which boxes of L lists remain when each takes away those after it that overlap it by more than a threshold.

    Args:
        boxes: (L, K, 4) boxes, the best of each list first.
        usable: (L, K) bool; the others are not there.
        threshold: largest intersection over union of two boxes that remain.

    Returns:
        (L, K) bool.
    """
    if boxes.device.type == "cpu":
        return torch.stack([_by_torchvision(*row, threshold) for row in zip(boxes, usable, strict=True)])
    step = max(1, CELLS // boxes.shape[1] ** 2)
    parts = zip(torch.split(boxes, step), torch.split(usable, step), strict=True)
    return torch.cat([fixed_point(*part, threshold) for part in parts])


def fixed_point(boxes: Tensor, usable: Tensor, threshold: float) -> Tensor:
    """`greedy_nms` as a fixed point (Zheng et al., Enhancing Geometric Factors in Model Learning, 2021: Cluster-NMS).

    A box remains if no remaining box before it overlaps it. Beginning with all, each round makes right what hangs on
    one more box, so that the rounds are as many as the longest chain of boxes that save each other.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    common = torch.minimum(x2[:, :, None], x2[:, None]).sub_(torch.maximum(x1[:, :, None], x1[:, None])).clamp_(min=0)
    height = torch.minimum(y2[:, :, None], y2[:, None]).sub_(torch.maximum(y1[:, :, None], y1[:, None])).clamp_(min=0)
    common.mul_(height)
    areas = (x2 - x1) * (y2 - y1)
    union = torch.add(areas[:, :, None], areas[:, None], out=height).sub_(common)
    takes = (common.div_(union) > threshold).triu_(diagonal=1).to(torch.bfloat16 if boxes.is_cuda else boxes.dtype)
    kept = usable
    while True:
        for _ in range(ROUNDS):
            before = kept
            taken = torch.bmm(kept[:, None].to(takes.dtype), takes)[:, 0] > 0
            kept = usable & ~taken
        if torch.equal(before, kept):
            return kept


def _by_torchvision(boxes: Tensor, usable: Tensor, threshold: float) -> Tensor:
    kept = torch.zeros_like(usable)
    rows = usable.nonzero()[:, 0]
    order = torch.arange(len(rows), 0, -1, device=boxes.device, dtype=boxes.dtype)  # as scores: the first is the best
    kept[rows[nms(boxes[rows], order, threshold)]] = True
    return kept
