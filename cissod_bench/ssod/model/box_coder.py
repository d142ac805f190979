"""mmdet's box coder without tensors of constants.

mmdet makes them on the device whenever boxes are coded (`new_tensor`), a copy that the host waits for. Results are the
same to the bit.
"""

import math
from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor


class SyncFreeBoxCoder(DeltaXYWHBBoxCoder):
    """mmdet's coder for plain (N, 4) boxes whose constants are numbers, not tensors; same arguments."""

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """(N, 4) float32 deltas from boxes to targets, both (N, 4)."""
        bboxes, gt_bboxes = bboxes.float(), gt_bboxes.float()
        size, target = bboxes[:, 2:] - bboxes[:, :2], gt_bboxes[:, 2:] - gt_bboxes[:, :2]
        center, aim = (bboxes[:, :2] + bboxes[:, 2:]) * 0.5, (gt_bboxes[:, :2] + gt_bboxes[:, 2:]) * 0.5
        columns = [*((aim - center) / size).unbind(1), *torch.log(target / size).unbind(1)]
        return torch.stack(
            [(column - mean) / std for column, mean, std in zip(columns, self.means, self.stds, strict=True)], dim=1
        )

    def decode(
        self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Any = None, wh_ratio_clip: float = 16 / 1000
    ) -> Tensor:
        """Boxes at (N, C x 4) deltas from (N, 4) boxes.

        Args:
            bboxes: the boxes that deltas start from.
            pred_bboxes: deltas.
            max_shape: height and width that results are clipped to; None for no clipping.
            wh_ratio_clip: sides change by at most this factor, or one over it.
        """
        if len(pred_bboxes) == 0:
            return pred_bboxes
        deltas = pred_bboxes.reshape(len(bboxes), -1, 4)
        dx, dy, dw, dh = (
            delta * std + mean for delta, mean, std in zip(deltas.unbind(-1), self.means, self.stds, strict=True)
        )
        shift, growth = torch.stack([dx, dy], dim=-1), torch.stack([dw, dh], dim=-1)
        limit = abs(math.log(wh_ratio_clip))
        center = ((bboxes[:, :2] + bboxes[:, 2:]) * 0.5)[:, None]
        size = (bboxes[:, 2:] - bboxes[:, :2])[:, None]
        center = center + size * shift
        half = size * growth.clamp(-limit, limit).exp() * 0.5
        corners = torch.cat([center - half, center + half], dim=-1)
        if self.clip_border and max_shape is not None:
            corners[..., 0::2].clamp_(0, max_shape[1])
            corners[..., 1::2].clamp_(0, max_shape[0])
        return corners.reshape(len(bboxes), -1)
