"""Which boxes are positive and which of them train: mmdet's assigner and random sampler for all images at once.

mmdet assigns and samples image by image and asks the device for the size of every selection. Here all images are rows
of padded tables, so that nothing waits for the device, and the random choice is a function of a seed from the host that
gives the same boxes on every device.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.models.task_modules.samplers import RandomSampler
from torch import Tensor

from cissod_bench.ssod.model.views import send

CELLS = 2**25
"""Overlaps computed at once, at most; more of them are computed image by image (0.1 GiB a temporary table)."""


def can_assign(assigner: Any) -> bool:
    """Whether `assign` does what this assigner of mmdet does."""
    return (
        type(assigner) is MaxIoUAssigner
        and isinstance(assigner.neg_iou_thr, float)
        and assigner.gt_max_assign_all
        and assigner.ignore_iof_thr <= 0
        and assigner.min_pos_iou > 0
        and type(assigner.iou_calculator) is BboxOverlaps2D
    )


def can_sample(sampler: Any) -> bool:
    """Whether `sample` draws as this sampler of mmdet does."""
    return type(sampler) is RandomSampler


def padded(parts: Sequence[Tensor], device: torch.device, fill: float = 0.0) -> Tensor:
    """(B, N, ...) rows of B tensors of up to N rows, at least one, filled up with `fill`."""
    counts = [len(part) for part in parts]
    longest = max(1, *counts)
    flat = torch.cat([*parts, parts[0].new_full((1, *parts[0].shape[1:]), fill)])
    index = torch.full((len(parts), longest), len(flat) - 1)
    start = 0
    for row, count in enumerate(counts):
        index[row, :count] = torch.arange(start, start + count)
        start += count
    return flat[send(index, device)]


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(..., G, N) intersection over union of (..., G, 4) and (..., N, 4) boxes, as mmdet's `BboxOverlaps2D` has it."""
    one_area, other_area = ((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (one, other))
    left, top, right, bottom = one[..., :, None, :].unbind(dim=-1)
    x1, y1, x2, y2 = other[..., None, :, :].unbind(dim=-1)
    width = (torch.min(right, x2) - torch.max(left, x1)).clamp(min=0)
    height = (torch.min(bottom, y2) - torch.max(top, y1)).clamp(min=0)
    common = width * height
    return common / (one_area[..., :, None] + other_area[..., None, :] - common).clamp(min=1e-6)


def assign(assigner: MaxIoUAssigner, boxes: Tensor, usable: Tensor, truth: Tensor) -> Tensor:
    """Assign the boxes of B images to their ground truth by overlap.

    Args:
        assigner: mmdet's, for its thresholds.
        boxes: (N, 4) of all images alike or (B, N, 4).
        usable: (B, N) bool; the others are assigned to nothing.
        truth: (B, G, 4) ground truth; rows of zeros are none.

    Returns:
        (B, N) int64: 1 + index of the ground truth, 0 for background, -1 for neither.
    """
    if len(truth) > 1 and usable.numel() * truth.shape[1] > CELLS:
        each = boxes if boxes.dim() == 3 else [boxes] * len(truth)
        rows = zip(each, usable[:, None], truth[:, None], strict=True)
        return torch.cat([assign(assigner, box[None], flag, row) for box, flag, row in rows])
    shared = torch.where(usable[:, None], overlaps(truth, boxes), -1.0)
    best, of = shared.max(dim=1)
    assigned = torch.where((best >= 0) & (best < assigner.neg_iou_thr), 0, -1)
    assigned = torch.where(best >= assigner.pos_iou_thr, of + 1, assigned)
    if assigner.match_low_quality:
        # Every ground-truth box gets the boxes that overlap it best; of several, the last one has them.
        highest = shared.max(dim=2, keepdim=True).values
        numbers = torch.arange(1, truth.shape[1] + 1, device=truth.device, dtype=torch.int32)[:, None]
        owner = torch.where((shared == highest) & (highest >= assigner.min_pos_iou), numbers, 0).max(dim=1).values
        assigned = torch.where(owner > 0, owner.long(), assigned)
    return assigned


def sample(sampler: RandomSampler, assigned: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Choose positive and negative boxes of B images at random.

    Args:
        sampler: mmdet's, for its numbers.
        assigned: (B, N) as `assign` gives it.

    Returns:
        Of the positive and of the negative boxes: (B, K) int64 indices and (B, K) bool, which of them are chosen.
    """
    order = random_order(assigned.shape[0], assigned.shape[1], assigned.device)
    positive, chosen = _first(assigned > 0, order, int(sampler.num * sampler.pos_fraction))
    count = chosen.sum(dim=1, keepdim=True)
    wanted = sampler.num - count
    if sampler.neg_pos_ub >= 0:
        wanted = torch.minimum(wanted, (sampler.neg_pos_ub * count.clamp(min=1)).long())
    negative, others = _first(assigned == 0, order, sampler.num)
    others = others & (torch.arange(others.shape[1], device=others.device) < wanted)
    return (positive, chosen), (negative, others)


def random_order(rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows, columns) int64 numbers below 2^32, all different in a row, the same on every device.

    A row is a permutation of 32-bit numbers (a multiply-xorshift hash, constants of the hash prospector's `lowbias32`)
    of which each column takes one, begun at a number from PyTorch's generator of the host.
    """
    seeds = send(torch.randint(2**32, (rows, 1)), device)
    mask = 0xFFFFFFFF
    value = torch.arange(columns, device=device) ^ seeds
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & mask
    value = ((value ^ (value >> 15)) * 0x846CA68B) & mask
    return value ^ (value >> 16)


def _first(candidates: Tensor, order: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """(B, K) indices of the first candidates of each row by `order`, the largest first, and which of them are some."""
    found, index = torch.where(candidates, order, -1).topk(min(number, candidates.shape[1]), dim=1)
    return index, found >= 0
