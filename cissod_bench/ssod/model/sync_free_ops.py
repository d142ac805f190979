"""Put parts into a detector that hardly wait for the device, in place of mmdet's.

mmdet makes tensors of constants on the device, copies the base anchors in each pass, and asks the device about every
ground-truth box and about the size of every selection: of stock Soft Teacher's step with five images, most of 580
waits. The replaced parts compute the same; which boxes train is drawn in another way (`sampling.py`).
"""

from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import nn

from cissod_bench.ssod.model.box_coder import SyncFreeBoxCoder
from cissod_bench.ssod.model.frozen_norm import fold_frozen_norms
from cissod_bench.ssod.model.roi_extractor import SortedRoIExtractor
from cissod_bench.ssod.model.roi_head import BatchedRoIHead
from cissod_bench.ssod.model.rpn_head import BatchedRPNHead


def make_sync_free(detector: Any) -> None:
    """Replace mmdet's coders, heads and RoI extractor of a two-stage detector by those that hardly wait for the device.

    Parts of other types stay as they are, and the new heads do as mmdet's where these have options that ours lack. None
    of the replaced parts has other weights.
    """
    fold_frozen_norms(detector.backbone)
    rpn, roi = detector.rpn_head, detector.roi_head
    for head in (rpn, roi.bbox_head):
        coder = head.bbox_coder
        if type(coder) is DeltaXYWHBBoxCoder and not (coder.use_box_type or coder.add_ctr_clamp):
            head.bbox_coder = SyncFreeBoxCoder(coder.means, coder.stds, coder.clip_border)
    if type(rpn) is RPNHead:
        rpn.__class__ = BatchedRPNHead
    if type(roi) is StandardRoIHead:
        roi.__class__ = BatchedRoIHead
    extractor = roi.bbox_roi_extractor
    if type(extractor) is SingleRoIExtractor and len(extractor.roi_layers) > 1:
        extractor.__class__ = SortedRoIExtractor
    for head in (rpn, roi.bbox_head):
        head.register_forward_hook(_single_precision)


def _single_precision(module: nn.Module, inputs: Any, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Outputs of a head as float32, so that boxes, scores and losses are, under autocast too."""
    return tuple(
        [level.float() for level in output] if isinstance(output, (list, tuple)) else output.float()
        for output in outputs
    )
