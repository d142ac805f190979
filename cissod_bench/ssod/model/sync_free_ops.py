"""mmdet's box coder, assigner and sampler in versions that hardly wait for the device, put into a detector.

mmdet makes tensors of constants on the device whenever boxes are coded (`new_tensor`, a copy that the host waits for),
copies the base anchors again in each pass, and asks the device about every ground-truth box when it assigns anchors and
five times an image when it samples: together most of a step's waits. Results are the same, random ones too.
"""

import math
from typing import Any

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.assigners import AssignResult, BboxOverlaps2D, MaxIoUAssigner
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.samplers import RandomSampler, SamplingResult
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.ssod.model.roi_extractor import SortedRoIExtractor
from cissod_bench.ssod.model.views import chosen, send


class LeanBoxCoder(DeltaXYWHBBoxCoder):
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


class LeanAssigner(MaxIoUAssigner):
    """mmdet's assigner by overlap, without a loop over ground-truth boxes; same arguments and results."""

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign N boxes to G ground-truth boxes by their (G, N) overlaps."""
        num_gts, num_boxes = overlaps.shape
        if num_gts == 0 or num_boxes == 0:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        best, of = overlaps.max(dim=0)
        assigned = torch.where((best >= 0) & (best < self.neg_iou_thr), 0, -1)
        assigned = torch.where(best >= self.pos_iou_thr, of + 1, assigned)
        if self.match_low_quality:
            # Every ground-truth box gets the boxes that overlap it best; of several, the last one has them.
            highest = overlaps.max(dim=1, keepdim=True).values
            numbers = torch.arange(1, num_gts + 1, device=overlaps.device, dtype=torch.int32)[:, None]
            owner = torch.where((overlaps == highest) & (highest >= self.min_pos_iou), numbers, 0).max(dim=0).values
            assigned = torch.where(owner > 0, owner.long(), assigned)
        labels = torch.where(assigned > 0, gt_labels[(assigned - 1).clamp(min=0)], -1)
        return AssignResult(num_gts=num_gts, gt_inds=assigned, max_overlaps=best, labels=labels)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(G, N) intersection over union of (G, 4) and (N, 4) boxes, as mmdet's `BboxOverlaps2D` computes it."""
    one_area, other_area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (one, other))
    low, high = torch.max(one[:, None, :2], other[:, :2]), torch.min(one[:, None, 2:], other[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    return common / (one_area[:, None] + other_area - common).clamp(min=1e-6)


class LeanSampler(RandomSampler):
    """mmdet's random sampler with one wait instead of five; same arguments, draws and results."""

    def sample(
        self, assign_result: AssignResult, pred_instances: InstanceData, gt_instances: InstanceData, **_: Any
    ) -> SamplingResult:
        """Choose positive and negative ones of an image's priors."""
        priors, truth = pred_instances.priors, gt_instances.bboxes
        flags = priors.new_zeros(len(priors), dtype=torch.uint8)
        if self.add_gt_as_proposals and len(truth):
            priors = torch.cat([truth, priors])
            assign_result.add_gt_(gt_instances.labels)
            flags = torch.cat([flags.new_ones(len(truth)), flags])
        masks = torch.stack([assign_result.gt_inds > 0, assign_result.gt_inds == 0])
        (positive, negative), _counts = chosen(masks, [len(priors)])
        positive = self._some(positive, int(self.num * self.pos_fraction))
        wanted = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            wanted = min(wanted, int(self.neg_pos_ub * max(1, len(positive))))
        return SamplingResult(positive, self._some(negative, wanted), priors, truth, assign_result, flags)

    def _some(self, indices: Tensor, number: int) -> Tensor:
        """At most so many of the indices, in rising order."""
        if len(indices) <= number:
            return indices
        order = send(torch.randperm(len(indices))[:number], indices.device)
        return indices[order].sort().values


def make_lean(detector: Any) -> None:
    """Replace mmdet's coders, assigners, samplers and RoI extractor of a two-stage detector by those that do not wait.

    Parts of other types, and with options that the lean ones lack, stay as they are. None of them has weights.
    """
    rpn, roi = detector.rpn_head, detector.roi_head
    for head in (rpn, roi.bbox_head):
        coder = head.bbox_coder
        if type(coder) is DeltaXYWHBBoxCoder and not (coder.use_box_type or coder.add_ctr_clamp):
            head.bbox_coder = LeanBoxCoder(coder.means, coder.stds, coder.clip_border)
    for owner, name in ((rpn, "assigner"), (roi, "bbox_assigner")):
        assigner: Any = getattr(owner, name, None)
        if type(assigner) is MaxIoUAssigner and isinstance(assigner.neg_iou_thr, float) and assigner.gt_max_assign_all:
            assigner.__class__ = LeanAssigner
            if type(assigner.iou_calculator) is BboxOverlaps2D and assigner.ignore_iof_thr <= 0:
                assigner.iou_calculator = overlaps
    for owner, name in ((rpn, "sampler"), (roi, "bbox_sampler")):
        sampler: Any = getattr(owner, name, None)
        if type(sampler) is RandomSampler:
            sampler.__class__ = LeanSampler
    extractor = roi.bbox_roi_extractor
    if type(extractor) is SingleRoIExtractor and len(extractor.roi_layers) > 1:
        extractor.__class__ = SortedRoIExtractor
    for head in (rpn, roi.bbox_head):
        head.register_forward_hook(_single_precision)


def keep_anchors_on(detector: Any, device: torch.device) -> None:
    """Move the RPN's base anchors to a device once; mmdet moves them in every pass."""
    generator = detector.rpn_head.prior_generator
    if generator.base_anchors[0].device != device:
        generator.base_anchors = [anchors.to(device) for anchors in generator.base_anchors]


def _single_precision(module: nn.Module, inputs: Any, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Outputs of a head as float32, so that boxes, scores and losses are, under autocast too."""
    return tuple(
        [level.float() for level in output] if isinstance(output, (list, tuple)) else output.float()
        for output in outputs
    )
