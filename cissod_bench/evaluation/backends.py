"""Raw precision and recall arrays per class from an evaluator library; the libraries agree bit for bit (tests).

`hotcoco` is the default, since the reference libraries take 60-150 times as long. `pycocotools` (COCO's rules) and
`lvis` (LVIS's federated rules) are the official libraries; they remain as options and as oracles of the tests.

All backends get the same checked columns, with boxes numbered from 1: the official libraries mark a match with the id
of the box, and take id 0 for "not matched".
"""

import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation.federated import best_of_each_image
from cissod_bench.evaluation.inputs import Detections, GroundTruth

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]
Backend = Callable[[GroundTruth, Detections, int, bool], Arrays]


def precision_recall(
    truth: GroundTruth, detections: Detections, *, evaluator: str, max_detections: int, lvis: bool
) -> Arrays:
    """Match detections to ground truth and return the raw curves.

    Args:
        truth: annotations of K classes.
        detections: scored boxes.
        evaluator: "hotcoco", "pycocotools" or "lvis".
        max_detections: how many of the highest-scored boxes count: per image and class under COCO's rules, per image
            over all classes under LVIS's, as in the official libraries.
        lvis: LVIS's federated rules instead of COCO's.

    Returns:
        precision (10, 101, K, 4) and recall (10, K, 4), float64: IoU thresholds 0.50..0.95, recall levels 0..1,
        classes by ascending id, object sizes all/small/medium/large; -1 where a class has no ground truth.

    Raises:
        UserError: the evaluator is unknown or does not support the rules.
    """
    if evaluator not in BACKENDS:
        raise unknown_name("evaluator", evaluator, BACKENDS)
    if max_detections < 1:
        raise UserError(f"max_detections is {max_detections}: at least one detection per image must count.")
    return BACKENDS[evaluator](truth, detections, max_detections, lvis)


def evaluator_version(evaluator: str) -> str:
    """Name and version of the package of an evaluator, such as "hotcoco 1.3.0"."""
    from importlib.metadata import version

    if evaluator not in BACKENDS:
        raise unknown_name("evaluator", evaluator, BACKENDS)
    return f"{evaluator} {version(evaluator)}"


def hotcoco_eval(truth: GroundTruth, detections: Detections, max_detections: int, lvis: bool) -> Any:
    """A `hotcoco.COCOeval` over the columns, before it is run.

    Its images and classes are numbered by their positions in `image_ids` and `class_ids`. This keeps the order of the
    ids and is exact in the float columns that it takes, unlike ids above 2**53.
    """
    import hotcoco

    # lvis-api skips boxes without area, in the annotations as well as in the results.
    kept = truth.areas > 0 if lvis else np.ones(len(truth.areas), dtype=np.bool_)
    dataset = hotcoco.COCO.from_arrays(
        _numbered_images(truth, lvis),
        [{"id": position, "name": name} for position, name in enumerate(truth.class_names)],
        np.searchsorted(truth.image_ids, truth.box_image[kept]),
        np.searchsorted(truth.class_ids, truth.box_class[kept]),
        truth.boxes[kept],
        area=truth.areas[kept],
        # LVIS annotates every object separately; its official evaluator has no crowd regions.
        iscrowd=np.zeros(int(kept.sum())) if lvis else truth.crowd,
    )
    images = np.searchsorted(truth.image_ids, detections.box_image)
    kinds = np.searchsorted(truth.class_ids, detections.box_class)
    rows = np.column_stack((images, detections.boxes, detections.scores, kinds))
    if lvis:
        # None: the cap is applied here, where a detection without area takes a place before it is dropped.
        rows = rows[best_of_each_image(detections, max_detections)]
        results = dataset.load_res(rows).cap_detections_per_image(None)
    else:
        results = dataset.load_res(rows)
    evaluation = hotcoco.COCOeval(dataset, results, "bbox", lvis_style=lvis)
    evaluation.params.max_dets = [max_detections]
    return evaluation


def counted_boxes(truth: GroundTruth, lvis: bool) -> NDArray[np.bool_]:
    """(N,) mask of the boxes that a detector should find: no crowd regions; in LVIS no boxes without area."""
    return truth.areas > 0 if lvis else ~truth.crowd


def _hotcoco(truth: GroundTruth, detections: Detections, max_detections: int, lvis: bool) -> Arrays:
    evaluation = hotcoco_eval(truth, detections, max_detections, lvis)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


def _pycocotools(truth: GroundTruth, detections: Detections, max_detections: int, lvis: bool) -> Arrays:
    if lvis:
        raise UserError("The evaluator 'pycocotools' does not know LVIS's rules; use 'hotcoco' or 'lvis'.")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        loaded = []
        for annotations in (_truth_dicts(truth), _detection_dicts(detections)):
            dataset = COCO()
            dataset.dataset = {
                "images": _images(truth, lvis),
                "categories": _categories(truth),
                "annotations": annotations,
            }
            dataset.createIndex()
            loaded.append(dataset)
        evaluation = COCOeval(*loaded, iouType="bbox")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


class _NumpyWithFloat:
    """NumPy as lvis 0.5.3 expects it: with the name `np.float`, which NumPy 1.24 removed."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _lvis(truth: GroundTruth, detections: Detections, max_detections: int, lvis: bool) -> Arrays:
    if not lvis:
        raise UserError("The evaluator 'lvis' knows only LVIS's rules; use 'hotcoco' or 'pycocotools'.")
    import lvis.eval as lvis_eval
    from lvis import LVIS, LVISEval, LVISResults

    lvis_eval.np = _NumpyWithFloat()  # replaces only the name in the library; NumPy itself is not changed
    loaded = []
    for kind in (LVIS, LVISResults):
        # Its constructors need a file and refuse an empty list of results; so fill the object as they do.
        dataset = kind.__new__(kind)
        dataset.logger = logging.getLogger("lvis")
        annotations = _truth_dicts(truth)
        if kind is LVISResults:
            annotations = dataset.limit_dets_per_image(_detection_dicts(detections), max_detections)
        dataset.dataset = {
            "images": _images(truth, lvis),
            "categories": [{**category, "frequency": "f"} for category in _categories(truth)],
            "annotations": annotations,
        }
        dataset._create_index()
        loaded.append(dataset)
    evaluation = LVISEval(*loaded, iou_type="bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _numbered_images(truth: GroundTruth, lvis: bool) -> list[dict[str, Any]]:
    if not lvis:
        return [{"id": position} for position in range(len(truth.image_ids))]
    position_of = {class_id: position for position, class_id in enumerate(truth.class_ids.tolist())}

    def positions(class_ids: tuple[int, ...]) -> list[int]:
        return [position_of[class_id] for class_id in class_ids if class_id in position_of]

    lists = enumerate(zip(truth.negative, truth.not_exhaustive, strict=True))
    return [
        {"id": position, "neg_category_ids": positions(negative), "not_exhaustive_category_ids": positions(partial)}
        for position, (negative, partial) in lists
    ]


def _images(truth: GroundTruth, lvis: bool) -> list[dict[str, Any]]:
    if not lvis:
        return [{"id": image} for image in truth.image_ids.tolist()]
    lists = zip(truth.image_ids.tolist(), truth.negative, truth.not_exhaustive, strict=True)
    return [
        {"id": image, "neg_category_ids": list(negative), "not_exhaustive_category_ids": list(not_exhaustive)}
        for image, negative, not_exhaustive in lists
    ]


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    pairs = zip(truth.class_ids.tolist(), truth.class_names, strict=True)
    return [{"id": class_id, "name": name} for class_id, name in pairs]


def _truth_dicts(truth: GroundTruth) -> list[dict[str, Any]]:
    columns = zip(
        truth.box_image.tolist(),
        truth.box_class.tolist(),
        truth.boxes.tolist(),
        truth.areas.tolist(),
        truth.crowd.astype(int).tolist(),
        strict=True,
    )
    return [
        {"id": index, "image_id": image, "category_id": kind, "bbox": box, "area": area, "iscrowd": crowd}
        for index, (image, kind, box, area, crowd) in enumerate(columns, start=1)
    ]


def _detection_dicts(detections: Detections) -> list[dict[str, Any]]:
    columns = zip(
        detections.box_image.tolist(),
        detections.box_class.tolist(),
        detections.boxes.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        {"id": index, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "score": score}
        for index, (image, kind, box, score) in enumerate(columns, start=1)
    ]


BACKENDS: dict[str, Backend] = {"hotcoco": _hotcoco, "pycocotools": _pycocotools, "lvis": _lvis}
"""Evaluators by the name that `--evaluator` takes."""
