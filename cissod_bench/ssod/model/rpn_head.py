"""mmdet's RPN head with targets, losses and proposals of all images of a batch at once.

mmdet's own does them image by image and level by level: of a training step with five images on a GPU, 600 to 800 kernel
launches and half of the waits. Weights, arguments and results are those of mmdet; which anchors train is drawn by
`sampling.py`.
"""

from functools import lru_cache
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional

from cissod_bench.ssod.model.nms import greedy_nms
from cissod_bench.ssod.model.sampling import assign, can_assign, can_sample, padded, sample
from cissod_bench.ssod.model.views import send

EPS = torch.finfo(torch.float32).eps
"""What mmdet adds to the denominators of losses."""


class BatchedRPNHead(RPNHead):
    """`RPNHead` that hardly waits for the device, unless its losses or samples are of another kind (`can_batch`)."""

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, Any]:
        """Losses `loss_rpn_cls` and `loss_rpn_bbox`, scalars or by level; see mmdet's head for the arguments."""
        if not can_batch(self):
            given = (cls_scores, bbox_preds, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore)
            return dict(super().loss_by_feat(*given))
        logits, deltas = _flat(cls_scores, 1)[..., 0], _flat(bbox_preds, 4)
        anchors, corners = self._anchors([level.shape[-2:] for level in cls_scores], logits.device)
        limits = torch.tensor([meta["pad_shape"][1::-1] for meta in batch_img_metas])
        usable = (corners < send(limits, logits.device)[:, None]).all(dim=-1)
        truth = padded([each.bboxes for each in batch_gt_instances], logits.device)
        assigned = assign(self.assigner, anchors, usable, truth)
        (positive, chosen), (negative, others) = sample(self.sampler, assigned)

        # mmdet counts one sample of a kind of which an image has none.
        count = torch.stack([chosen.sum(dim=1), others.sum(dim=1)]).clamp(min=1).sum() + EPS
        wanted = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)], dim=1)
        losses = functional.binary_cross_entropy_with_logits(
            logits.gather(1, torch.cat([positive, negative], dim=1)), wanted.to(logits.dtype), reduction="none"
        )
        loss_cls = (losses * torch.cat([chosen, others], dim=1)).sum() / count

        owner = (assigned.gather(1, positive) - 1).clamp(min=0)
        boxes = truth.gather(1, owner[..., None].expand(-1, -1, 4))
        targets = self.bbox_coder.encode(anchors[positive].flatten(0, 1), boxes.flatten(0, 1)).view_as(boxes)
        found = deltas.gather(1, positive[..., None].expand(-1, -1, 4))
        loss_bbox = torch.where(chosen[..., None], (found - targets).abs(), 0.0).sum() / count
        return {
            "loss_rpn_cls": self.loss_cls.loss_weight * loss_cls,
            "loss_rpn_bbox": self.loss_bbox.loss_weight * loss_bbox,
        }

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: Any = None,
        batch_img_metas: list[dict[str, Any]] | None = None,
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Proposals of each image, best first; see mmdet's head for the arguments."""
        cfg = self.test_cfg if cfg is None else cfg
        metas = batch_img_metas or []
        plain = can_batch(self) and set(cfg.nms) == {"type", "iou_threshold"} and cfg.nms.type == "nms"
        if rescale or not with_nms or not plain:
            return list(super().predict_by_feat(cls_scores, bbox_preds, None, metas, cfg, rescale, with_nms))
        with torch.no_grad():
            return self._proposals([level.detach() for level in cls_scores], bbox_preds, metas, cfg)

    def _proposals(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], metas: list[dict[str, Any]], cfg: Any
    ) -> list[InstanceData]:
        device, images = cls_scores[0].device, len(metas)
        sizes = [level.shape[-2:] for level in cls_scores]
        cells = [height * width * self.num_base_priors for height, width in sizes]
        anchors = torch.split(self._anchors(sizes, device)[0], cells)
        best, chosen, deltas = [], [], []
        for logits, regressed, priors in zip(cls_scores, bbox_preds, anchors, strict=True):
            scores, index = _flat([logits], 1)[..., 0].sigmoid().sort(dim=1, descending=True, stable=True)
            if cfg.get("nms_pre", -1) > 0:
                scores, index = scores[:, : cfg.nms_pre], index[:, : cfg.nms_pre]
            best.append(scores)
            chosen.append(priors[index])
            deltas.append(_flat([regressed], 4).gather(1, index[..., None].expand(-1, -1, 4)))
        counts = [scores.shape[1] for scores in best]
        scores, priors = torch.cat(best, dim=1), torch.cat(chosen, dim=1)
        boxes = self.bbox_coder.decode(priors.reshape(-1, 4), torch.cat(deltas, dim=1).reshape(-1, 4))
        boxes = boxes.view(images, -1, 4)
        if self.bbox_coder.clip_border:
            sides = torch.tensor([[meta["img_shape"][1], meta["img_shape"][0]] * 2 for meta in metas])
            boxes = torch.minimum(boxes.clamp(min=0), send(sides, device)[:, None])
        usable = torch.ones_like(scores, dtype=torch.bool)
        if cfg.get("min_bbox_size", -1) >= 0:
            usable = (boxes[..., 2:] - boxes[..., :2] > cfg.min_bbox_size).all(dim=-1)

        # Boxes of different levels do not suppress each other: each level of each image is a list.
        kept = greedy_nms(_lists(boxes, counts), _lists(usable, counts), cfg.nms.iou_threshold)
        kept = kept.view(images, len(counts), -1)
        kept = torch.cat([kept[:, level, :count] for level, count in enumerate(counts)], dim=1)
        scores, order = torch.where(kept, scores, -1.0).sort(dim=1, descending=True, stable=True)
        scores, order = scores[:, : cfg.max_per_img], order[:, : cfg.max_per_img]
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        numbers = (scores >= 0).sum(dim=1).tolist()
        return [
            InstanceData(bboxes=box[:count], scores=score[:count], labels=torch.zeros_like(index[:count]))
            for box, score, index, count in zip(boxes, scores, order, numbers, strict=True)
        ]

    def _anchors(self, sizes: list[Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """(A, 4) anchors of all levels and the (A, 2) upper left corners of the cells that they belong to."""
        if not hasattr(self, "_grid"):
            self._grid = lru_cache(maxsize=32)(self._make_grid)
        return self._grid(tuple(tuple(size) for size in sizes), device)

    def _make_grid(self, sizes: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
        anchors = torch.cat(self.prior_generator.grid_priors(sizes, device="cpu"))
        corners = []
        for (height, width), stride in zip(sizes, self.prior_generator.strides, strict=True):
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            corner = torch.stack([columns * stride[0], rows * stride[1]], dim=-1).reshape(-1, 2)
            corners.append(corner.repeat_interleave(self.num_base_priors, dim=0))
        return anchors.to(device), torch.cat(corners).to(device)


def can_batch(head: Any) -> bool:
    """Whether a head's losses and samples are of the kind that `BatchedRPNHead` computes for all images at once."""
    return (
        type(head.loss_cls) is CrossEntropyLoss
        and head.loss_cls.use_sigmoid
        and head.loss_cls.class_weight is None
        and type(head.loss_bbox) is L1Loss
        and not head.reg_decoded_bbox
        and (
            head.train_cfg is None
            or (
                head.train_cfg.allowed_border < 0
                and head.train_cfg.pos_weight <= 0
                and can_assign(head.assigner)
                and can_sample(head.sampler)
                and not head.sampler.add_gt_as_proposals
            )
        )
    )


def _flat(levels: list[Tensor], width: int) -> Tensor:
    """(B, A, width) values at the anchors of (B, K x width, H, W) maps, level by level and row by row."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, width) for level in levels], dim=1)


def _lists(table: Tensor, counts: list[int]) -> Tensor:
    """(B x L, K, ...) lists of a (B, A, ...) table, one for each of L levels of each image, filled up with zeros."""
    longest = max(counts)
    parts = [
        functional.pad(part, (0, 0) * (part.dim() - 2) + (0, longest - part.shape[1]))
        for part in torch.split(table, counts, dim=1)
    ]
    return torch.stack(parts, dim=1).flatten(0, 1)
