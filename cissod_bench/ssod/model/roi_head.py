"""mmdet's RoI head with sampling, losses and detections of all images of a batch at once.

Weights, arguments and results are those of mmdet's `StandardRoIHead`; which RoIs train is drawn by `sampling.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.losses import L1Loss, accuracy
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import nms

from cissod_bench.ssod.model.box_coder import SyncFreeBoxCoder
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead
from cissod_bench.ssod.model.rpn_head import EPS
from cissod_bench.ssod.model.sampling import assign, can_assign, can_sample, padded, sample
from cissod_bench.ssod.model.views import send


@dataclass(frozen=True)
class RoISamples:
    """RoIs that train, image by image, of each the positive ones first.

    Attributes:
        rois: (R, 5) position of the image in the batch and box.
        counts: RoIs of each image.
        labels: (R,) int64 class, n for background.
        weights: (R,) label weights.
        box_targets: (R, 4) deltas to the ground truth, 0 for background.
        box_weights: (R, 4) 1 for positive RoIs, 0 for background.
    """

    rois: Tensor
    counts: list[int]
    labels: Tensor
    weights: Tensor
    box_targets: Tensor
    box_weights: Tensor

    def split(self, images: int) -> tuple["RoISamples", "RoISamples"]:
        """The samples of the first images, and those of the others, whose positions start at 0 again."""
        cut = sum(self.counts[:images])
        columns = [self.rois, self.labels, self.weights, self.box_targets, self.box_weights]
        first, second = zip(*((column[:cut], column[cut:]) for column in columns), strict=True)
        moved = torch.cat([second[0][:, :1] - images, second[0][:, 1:]], dim=1)
        return (
            RoISamples(first[0], self.counts[:images], *first[1:]),
            RoISamples(moved, self.counts[images:], *second[1:]),
        )


def sample_rois(roi_head: Any, proposals: Sequence[Tensor], truth: Sequence[InstanceData]) -> RoISamples:
    """Assign the proposals of each image to its ground truth, and sample RoIs; the host waits once for all images.

    Args:
        roi_head: with mmdet's assigner and sampler; what `can_batch` refuses is sampled image by image, by mmdet.
        proposals: for each image (P, 4) boxes.
        truth: for each image `bboxes` and `labels`.
    """
    head, settings = roi_head.bbox_head, roi_head.train_cfg
    if not can_batch(roi_head):
        results = []
        for boxes, found in zip(proposals, truth, strict=True):
            priors = InstanceData(priors=boxes)
            assigned = roi_head.bbox_assigner.assign(priors, found)
            results.append(roi_head.bbox_sampler.sample(assigned, priors, found))
        counts = [len(result.priors) for result in results]
        return RoISamples(bbox2roi([each.priors for each in results]), counts, *head.get_targets(results, settings))

    device, sampler = proposals[0].device, roi_head.bbox_sampler
    given = [len(each) if sampler.add_gt_as_proposals else 0 for each in truth]
    candidates = zip(truth, given, proposals, strict=True)
    boxes = padded([torch.cat([each.bboxes[:own], box]) for each, own, box in candidates], device)
    targets = padded([each.bboxes for each in truth], device)
    classes = padded([each.labels for each in truth], device)
    bounds = send(torch.tensor([[own, own + len(box)] for own, box in zip(given, proposals, strict=True)]), device)
    place = torch.arange(boxes.shape[1], device=device)
    own = place < bounds[:, :1]
    inside = place < bounds[:, 1:]
    assigned = assign(roi_head.bbox_assigner, boxes, inside & ~own, targets)
    assigned = torch.where(own, place + 1, assigned)  # a ground-truth box among the proposals is its own
    (positive, chosen), (negative, others) = sample(sampler, assigned)

    numbers = torch.stack([chosen.sum(dim=1), others.sum(dim=1)], dim=1).tolist()
    width = boxes.shape[1]
    index = torch.cat([
        torch.where(chosen, positive, width).sort(dim=1).values, torch.where(others, negative, width).sort(dim=1).values
    ], dim=1)  # fmt: skip
    rows, places = [], []
    for image, (first, second) in enumerate(numbers):
        start = image * index.shape[1]
        places += [torch.arange(start, start + first), torch.arange(second) + start + positive.shape[1]]
        rows.append(torch.full((first + second,), image))
    row, place = send(torch.stack([torch.cat(rows), torch.cat(places)]), device)
    column = index.flatten()[place]
    priors, of = boxes[row, column], assigned[row, column]
    is_object = of > 0
    of = (of - 1).clamp(min=0)
    labels = torch.where(is_object, classes[row, of], head.num_classes)
    deltas = torch.where(is_object[:, None], head.bbox_coder.encode(priors, targets[row, of]), 0.0)
    weights = torch.ones_like(priors[:, 0])
    if settings.pos_weight > 0:
        weights = torch.where(is_object, settings.pos_weight, weights)
    box_weights = is_object[:, None].to(priors.dtype).expand(-1, 4)
    rois = torch.cat([row[:, None].to(priors.dtype), priors], dim=1)
    return RoISamples(rois, [first + second for first, second in numbers], labels, weights, deltas, box_weights)


def box_loss(head: Any, bbox_pred: Tensor, samples: RoISamples) -> Tensor:
    """Scalar loss of (R, 4) or (R, n x 4) deltas, as mmdet's `BBoxHead.loss` has it, over all R samples."""
    if type(head.loss_bbox) is not L1Loss or head.reg_decoded_bbox:
        targets = (samples.labels, samples.weights, samples.box_targets, samples.box_weights)
        loss: Tensor = head.loss(None, bbox_pred, samples.rois, *targets)["loss_bbox"]
        return loss
    deltas = bbox_pred.view(len(bbox_pred), -1, 4)
    column = samples.labels.clamp(max=deltas.shape[1] - 1)[:, None, None].expand(-1, 1, 4)
    wrong = (deltas.gather(1, column)[:, 0] - samples.box_targets).abs() * samples.box_weights
    return head.loss_bbox.loss_weight * wrong.sum() / (len(deltas) + EPS)


def class_scores(head: Any, cls_score: Tensor) -> Tensor:
    """(R, n + 1) class scores of (R, C) logits, background last, by the head's own activation."""
    scores: Tensor = head.loss_cls.get_activation(cls_score) if head.custom_cls_channels else cls_score.softmax(-1)
    return scores


class BatchedRoIHead(StandardRoIHead):
    """`StandardRoIHead` that hardly waits for the device, unless it samples in another way (`can_batch`)."""

    def loss(
        self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of a batch with ground truth; see mmdet's head for the arguments."""
        if not can_batch(self):
            return dict(super().loss(x, rpn_results_list, batch_data_samples))
        truth = [each.gt_instances for each in batch_data_samples]
        samples = sample_rois(self, [each.bboxes for each in rpn_results_list], truth)
        if len(samples.rois) == 0:
            return dict(super().loss(x, rpn_results_list, batch_data_samples))
        output = self._bbox_forward(x, samples.rois)
        losses: dict[str, Tensor] = {}
        count = (samples.weights > 0).sum().clamp(min=1).float()
        loss_cls = self.bbox_head.loss_cls(output["cls_score"], samples.labels, samples.weights, avg_factor=count)
        losses |= loss_cls if isinstance(loss_cls, dict) else {"loss_cls": loss_cls}
        if self.bbox_head.custom_activation:
            losses |= self.bbox_head.loss_cls.get_accuracy(output["cls_score"], samples.labels)
        else:
            losses["acc"] = accuracy(output["cls_score"], samples.labels)
        losses["loss_bbox"] = box_loss(self.bbox_head, output["bbox_pred"], samples)
        return losses

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detections of each image, best first; see mmdet's head for the arguments."""
        proposals = [each.bboxes for each in rpn_results_list]
        if not sum(map(len, proposals)) or not _plain(self.bbox_head, rcnn_test_cfg):
            return list(super().predict_bbox(x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale))
        rois = bbox2roi(proposals)
        output = self._bbox_forward(x, rois)
        scores = class_scores(self.bbox_head, output["cls_score"])
        boxes = self.bbox_head.bbox_coder.decode(rois[:, 1:], output["bbox_pred"]).view(len(rois), -1, 4)
        image = rois[:, 0].long()
        if self.bbox_head.bbox_coder.clip_border:
            sides = torch.tensor([[meta["img_shape"][1], meta["img_shape"][0]] * 2 for meta in batch_img_metas])
            boxes = torch.minimum(boxes.clamp(min=0), send(sides, rois.device)[image][:, None])
        if rescale:
            factors = torch.tensor([[1 / factor for factor in meta["scale_factor"]] * 2 for meta in batch_img_metas])
            boxes = boxes * send(factors, rois.device)[image][:, None]

        row, label = (scores[:, :-1] > rcnn_test_cfg.score_thr).nonzero().unbind(dim=1)
        every = scores
        boxes, scores = boxes[row, label.clamp(max=boxes.shape[1] - 1)], scores[row, label]
        places = torch.arange(len(proposals), device=rois.device)
        counts = (image[row][:, None] == places).sum(dim=0).tolist()
        found = []
        columns = (torch.split(column, counts) for column in (boxes, scores, label, row))
        for box, score, classes, source in zip(*columns, strict=True):
            if len(box):
                moved = box + (classes.to(box) * (box.max() + 1))[:, None]  # classes do not suppress each other
                kept = nms(moved, score, rcnn_test_cfg.nms.iou_threshold)
                if rcnn_test_cfg.max_per_img > 0:
                    kept = kept[: rcnn_test_cfg.max_per_img]
                box, score, classes, source = box[kept], score[kept], classes[kept], source[kept]
            more = {"class_scores": every[source]} if isinstance(self.bbox_head, ClassScoresBBoxHead) else {}
            found.append(InstanceData(bboxes=box, scores=score, labels=classes, **more))
        return found


def can_batch(roi_head: Any) -> bool:
    """Whether a head samples and computes losses as `sample_rois` and `BatchedRoIHead` do, for all images at once."""
    head = roi_head.bbox_head
    return (
        not roi_head.with_mask
        and not roi_head.with_shared_head
        and head.with_reg
        and not head.reg_decoded_bbox
        and (roi_head.train_cfg is None or (can_assign(roi_head.bbox_assigner) and can_sample(roi_head.bbox_sampler)))
    )


def _plain(head: Any, settings: Any) -> bool:
    """Whether detections come from a head, and are thinned out, in the usual way."""
    return (
        settings is not None
        and type(head)._predict_by_feat_single
        in (BBoxHead._predict_by_feat_single, ClassScoresBBoxHead._predict_by_feat_single)
        and type(head.bbox_coder) is SyncFreeBoxCoder
        and set(settings.nms) == {"type", "iou_threshold"}
        and settings.nms.type == "nms"
    )
