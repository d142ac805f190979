"""Boxes between an image and its augmented views, for all images of a batch at once.

Homographies come from the loader, so what can be computed of them is computed on the host, and one small table goes to
the device for all boxes of a batch. Coordinates are single precision under autocast too: in bf16 a box at 1,300 px
would move by up to 4 px.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor


def homographies(samples: Sequence[DetDataSample]) -> Tensor:
    """(B, 3, 3) float32 maps from the original images to their views, on the host."""
    return torch.from_numpy(np.stack([sample.homography_matrix for sample in samples]).astype(np.float32, copy=False))


def send(table: Tensor, device: torch.device) -> Tensor:
    """A small table of the host on a device, which the host does not wait for."""
    return (table.pin_memory() if device.type == "cuda" else table).to(device, non_blocking=True)


def project(boxes: Tensor, counts: Sequence[int], matrices: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """Boxes around the images of boxes under homographies, clipped.

    Args:
        boxes: (N, 4) boxes of all images, image by image.
        counts: boxes of each image.
        matrices: (B, 3, 3) homography of each image, on the host.
        shapes: height and width that the boxes of each image are clipped to.

    Returns:
        (N, 4) float32 boxes.
    """
    limits = torch.tensor([[shape[1], shape[0]] for shape in shapes], dtype=torch.float32)
    owners = torch.repeat_interleave(torch.tensor(counts))
    table = send(torch.cat([matrices.flatten(1), limits], dim=1)[owners], boxes.device)
    with torch.autocast(boxes.device.type, enabled=False):
        x, y = boxes[:, 0::2].float().repeat(1, 2), boxes[:, 1::2].float().repeat_interleave(2, dim=1)
        rows = table[:, :9, None].unbind(dim=1)
        moved_x, moved_y, depth = (rows[first] * x + rows[first + 1] * y + rows[first + 2] for first in (0, 3, 6))
        moved = torch.stack([moved_x / depth, moved_y / depth], dim=1)  # (N, 2, 4 corners)
        corners = torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=1)
        return torch.minimum(corners.clamp(min=0), table[:, 9:].repeat(1, 2))


def chosen(masks: Tensor, counts: Sequence[int]) -> tuple[list[Tensor], list[list[int]]]:
    """Where masks over the boxes of a batch hold; the host waits once for all of them.

    Args:
        masks: (M, N) bool.
        counts: boxes of each of the B images, N in all.

    Returns:
        for each mask the int64 indices where it holds, in order, and for each mask their number in each image.
    """
    inside = torch.stack([part.sum(dim=1) for part in torch.split(masks, list(counts), dim=1)], dim=1).tolist()
    if masks.device.type == "cpu":
        return [mask.nonzero()[:, 0] for mask in masks], inside
    order = masks.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    return [row[: sum(numbers)] for row, numbers in zip(order, inside, strict=True)], inside
