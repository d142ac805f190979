"""Which detection found which object: the matching of the evaluator as columns, to be re-weighted or counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cissod_bench.evaluation.backends import hotcoco_eval
from cissod_bench.evaluation.inputs import Detections, GroundTruth


@dataclass(frozen=True, eq=False)
class Matches:
    """Result of matching over I images and K classes, object size "all".

    Attributes:
        images: number of images I; `classes` number of classes K.
        image: (D,) int64, position of the detection's image among the ascending image ids.
        kind: (D,) int64, position of its class among the ascending class ids; ascending.
        score: (D,) float64, descending within a class.
        matched: (10, D) bool, by IoU threshold 0.50..0.95.
        ignored: (10, D) bool, counts neither as a true nor as a false positive.
        truth_image, truth_kind: (G,) int64, the same positions of every object that should be found.
    """

    images: int
    classes: int
    image: NDArray[np.int64]
    kind: NDArray[np.int64]
    score: NDArray[np.float64]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_image: NDArray[np.int64]
    truth_kind: NDArray[np.int64]


def match(truth: GroundTruth, detections: Detections, *, max_detections: int = 100, lvis: bool = False) -> Matches:
    """Match detections to ground truth by the rules of COCO or LVIS, with `hotcoco`.

    Args:
        truth: annotations.
        detections: scored boxes.
        max_detections: see `backends.precision_recall`.
        lvis: LVIS's federated rules instead of COCO's.
    """
    evaluation = hotcoco_eval(truth, detections, max_detections, lvis)
    evaluation.params.area_rng = [[0.0, 1e10]]
    evaluation.params.area_rng_lbl = ["all"]
    evaluation.evaluate()
    images: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    kinds: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    scores: list[NDArray[np.float64]] = [np.empty(0)]
    matched: list[NDArray[np.bool_]] = [np.empty((10, 0), np.bool_)]
    ignored: list[NDArray[np.bool_]] = [np.empty((10, 0), np.bool_)]
    truth_image: list[int] = []
    truth_kind: list[int] = []
    # By class, then by image: the order in which the evaluators join the images before they sort by score.
    for cell in evaluation.eval_imgs:
        if cell is None:
            continue
        image, kind = cell["image_id"], cell["category_id"]
        wanted = sum(cell["gtInDenominator"])
        truth_image += [image] * wanted
        truth_kind += [kind] * wanted
        found = len(cell["dtIds"])
        if found:
            images.append(np.full(found, image))
            kinds.append(np.full(found, kind))
            scores.append(np.array(cell["dtScores"]))
            matched.append(np.array(cell["dtMatched"], dtype=np.bool_))
            ignored.append(np.array(cell["dtIgnore"], dtype=np.bool_))
    score, all_kinds = np.concatenate(scores), np.concatenate(kinds)
    order = np.lexsort((-score, all_kinds))
    return Matches(
        images=len(truth.image_ids),
        classes=len(truth.class_ids),
        image=np.concatenate(images)[order],
        kind=all_kinds[order],
        score=score[order],
        matched=np.concatenate(matched, axis=1)[:, order],
        ignored=np.concatenate(ignored, axis=1)[:, order],
        truth_image=np.array(truth_image, dtype=np.int64),
        truth_kind=np.array(truth_kind, dtype=np.int64),
    )
