"""What is odd about detections that can be scored: they are what AP is computed of, but hardly what was meant."""

import numpy as np

from cissod_bench.coco.checks import FEWEST, looks_like_corners
from cissod_bench.evaluation.inputs import Detections, GroundTruth

_FACTORS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7, 0xAAAAAAAAAAAAAAAB, 0xC2B2AE3D27D4EB4F,
            0x165667B19E3779F9, 0x27D4EB2F165667C5)  # fmt: skip


def doubts(found: Detections, truth: GroundTruth) -> list[str]:
    """Sentences on detections that are written in another form than COCO's, or twice; empty for most.

    Args:
        found: the detections.
        truth: the ground truth that they are scored against.
    """
    said = []
    if looks_like_corners(found.boxes) and not looks_like_corners(truth.boxes):
        said.append("The boxes look like x1, y1, x2, y2: COCO's results have x, y, width and height.")
    if len(found.boxes) >= FEWEST and found.boxes.max() <= 1 < truth.boxes.max(initial=0.0):
        said.append("The boxes look normalised to 0..1: COCO's results have pixels.")
    above = int((found.scores > 1).sum())
    if 0 < above < int((found.scores > 0).sum()):
        said.append(f"{above:,} of {len(found.scores):,} scores are above 1 and others below: are all on one scale?")
    repeated = _repeated(found)
    if repeated:
        said.append(f"{repeated:,} of {len(found.scores):,} detections come twice (image, class, box and score alike).")
    return said


def _repeated(found: Detections) -> int:
    """Detections of which there is another one that is equal in everything, less one of each."""
    key = np.zeros(len(found.scores), np.uint64)
    columns = (found.box_image, found.box_class, *found.boxes.T, found.scores)
    for column, factor in zip(columns, _FACTORS, strict=True):
        key += np.ascontiguousarray(column).view(np.uint64) * np.uint64(factor)
    key.sort()
    return int((key[1:] == key[:-1]).sum())
