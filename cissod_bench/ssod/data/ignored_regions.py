"""Ignored regions among the labels: neither objects nor background.

mmdet trains proposals in crowd regions as background, and counts the regions as objects of their class where images are
repeated. For a split that ignores the minority objects of D_m that would be the contrary of what it says.
"""

from typing import Any

from mmdet.datasets import CocoDataset

IGNORED_OVERLAP = {"assigner": {"ignore_iof_thr": 0.5}}
NOT_BACKGROUND: dict[str, Any] = {"train_cfg": {"rpn": IGNORED_OVERLAP, "rcnn": IGNORED_OVERLAP}}
"""Change of a detector: anchors and proposals of which half lies in an ignored region do not train."""


class ObjectsAlone(CocoDataset):
    """COCO images of which ignored regions are no objects."""

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the objects of an image."""
        return [each["bbox_label"] for each in self.get_data_info(idx)["instances"] if not each["ignore_flag"]]
