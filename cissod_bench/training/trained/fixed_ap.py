"""LVIS's AP Fixed of a finished run, on request: its teacher detects once more, without a cap in an image."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from cissod_bench.coco.names import clean_name
from cissod_bench.evaluation.fixed import PER_CLASS, best_of_each_class
from cissod_bench.evaluation.groups import evaluate, load_evaluation
from cissod_bench.evaluation.inputs import Detections, GroundTruth, read_ground_truth
from cissod_bench.io import decode_json, read_regular, write_json
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.training.trained.predict import Predictor, load_scored

BETWEEN = 2_000_000
"""Detections in memory at which the worst of each class are dropped: LVIS's validation set gives a hundred millions."""


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Images(msgspec.Struct):
    images: list[_Image]


def add_fixed_ap(run: RunFolder, device: str, *, progress: bool = False) -> dict[str, dict[str, float | None]]:
    """Measure AP Fixed and write `fixed_ap.json`, unless it is there.

    Args:
        run: a finished run by LVIS's rules.
        device: "cpu" or "cuda".
        progress: whether to show progress on standard error.

    Returns:
        group -> metric -> value in [0, 1], None where the group has no ground truth of that size.

    Raises:
        UserError: no ground truth any more, no checkpoint of the record's scores, or an image that cannot be read.
    """
    known = run.fixed_ap_metrics()
    if known is not None:
        return known
    record = run.result()
    truth = read_ground_truth(Path(str(record.annotations)), lvis=True)
    predictor = load_scored(run, record, device=device, trust=True)  # the user's own run, which this process trained
    predictor.detector.roi_head.test_cfg.max_per_img = -1
    images = decode_json(read_regular(run.validation_images), _Images, name=run.validation_images).images
    shown = track(images, "AP Fixed", console=Console(stderr=True), disable=not progress)
    found = best_detections(_detections(predictor, shown, truth), PER_CLASS)
    arrays = load_evaluation(run.per_class)
    groups = {name: members for name, members in arrays.groups.items() if not name.startswith("official-")}
    evaluation = evaluate(
        truth, found, groups, classes=arrays.class_names, evaluator=arrays.evaluator, lvis=True, per_class=PER_CLASS
    )
    write_json(run.fixed_ap, {"max_detections_per_class": PER_CLASS, "metrics": evaluation.metrics()})
    return evaluation.metrics()


def best_detections(parts: Iterable[Detections], number: int, between: int = BETWEEN) -> Detections:
    """`best_of_each_class` of all parts together.

    Detections are sorted out whenever `between` new ones are there, or as many as were kept the last time: so the time
    does not grow with the square of their number, and no more than twice the kept ones or `between` are in memory.
    """
    kept: list[Detections] = []
    new, least = 0, between
    for part in parts:
        kept.append(part)
        new += len(part.scores)
        if new > least:
            kept = [best_of_each_class(_joined(kept), number)]
            new, least = 0, max(between, len(kept[0].scores))
    return best_of_each_class(_joined(kept), number)


def _joined(parts: list[Detections]) -> Detections:
    names = [field.name for field in fields(Detections)]
    return Detections(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _detections(predictor: Predictor, images: Iterable[_Image], truth: GroundTruth) -> Iterator[Detections]:
    folder = Path(predictor.config.test_dataloader.dataset.data_prefix["img"])
    id_of = dict(zip(truth.class_names, truth.class_ids.tolist(), strict=True))
    ids = np.array([id_of[clean_name(str(category["name"]))] for category in predictor.categories], dtype=np.int64)
    for image in images:
        found = predictor.predict(folder / image.file_name)
        yield Detections(
            box_image=np.full(len(found.scores), image.id, dtype=np.int64),
            box_class=ids[found.labels],
            boxes=found.boxes.astype(np.float64),
            scores=found.scores.astype(np.float64),
        )
