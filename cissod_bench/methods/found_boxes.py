"""Names in CReST's checkpoints of version 0.1, so that they still load."""

from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels as JoiningLabels
from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes as FoundBoxes

__all__ = ["FoundBoxes", "JoiningLabels"]
