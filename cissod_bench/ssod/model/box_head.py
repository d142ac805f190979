"""mmdet's box head with what a refinement of pseudo labels needs: the scores of all classes of each detection."""

from typing import Any

from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmengine.structures import InstanceData
from torch import Tensor


class ClassScoresBBoxHead(ConvFCBBoxHead):
    """mmdet's head, whose detections also carry `class_scores`, the (K, n + 1) scores of the RoIs they come from."""

    def __init__(self, num_shared_fcs: int = 2, **options: Any) -> None:
        super().__init__(num_shared_fcs=num_shared_fcs, **options)

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict[str, Any],
        rescale: bool = False,
        rcnn_test_cfg: Any = None,
    ) -> InstanceData:
        if rcnn_test_cfg is None or len(roi) == 0:
            return super()._predict_by_feat_single(roi, cls_score, bbox_pred, img_meta, rescale, rcnn_test_cfg)
        every = super()._predict_by_feat_single(roi, cls_score, bbox_pred, img_meta, rescale, None)
        boxes, labels, index = multiclass_nms(
            every.bboxes,
            every.scores,
            rcnn_test_cfg.score_thr,
            rcnn_test_cfg.nms,
            rcnn_test_cfg.max_per_img,
            return_inds=True,
        )
        scores = every.scores[index // self.num_classes]
        return InstanceData(bboxes=boxes[:, :4], scores=boxes[:, 4], labels=labels, class_scores=scores)
