"""Group AP, the main result of the benchmark, from unrounded per-class arrays.

The metric of a group is the mean over its classes that have ground truth (of the object size in question). The other
classes are left out and counted, as in COCO's own mean over all classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.coco.names import clean_name
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation.backends import counted_boxes, precision_recall
from cissod_bench.evaluation.fixed import best_of_each_class, most_in_an_image
from cissod_bench.evaluation.inputs import Detections, GroundTruth, read_detections, read_ground_truth
from cissod_bench.io import atomic_path, decode_json, open_regular

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
"""Names of the metrics of a class and of a group, all in [0, 1]."""
LARGEST_ARRAYS = 2**30
"""Bytes of the arrays of an evaluation that is read: 32 kB a class, so ten times the classes of any data set."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Raw result of scoring one list of detections: K classes, 10 IoU thresholds, 101 recall levels, 4 object sizes.

    Attributes:
        class_ids: (K,) int64, ascending.
        class_names: K names.
        num_ground_truth: (K,) int64, boxes that count (see `backends.counted_boxes`).
        precision: (10, 101, K, 4) float64, -1 where a class has no ground truth of that size.
        recall: (10, K, 4) float64, likewise.
        groups: names of the classes of each group, "all" first.
        evaluator: backend that computed the arrays.
        max_detections: detections that counted per image.
        lvis: whether LVIS's federated rules were used.
        annotations: the file of the ground truth, as given.
        annotations_digest: `GroundTruth.digest`; scores against another ground truth are not comparable.
    """

    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    num_ground_truth: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    groups: dict[str, tuple[str, ...]]
    evaluator: str
    max_detections: int
    lvis: bool
    annotations: str
    annotations_digest: str

    @property
    def outside_task(self) -> tuple[str, ...]:
        """Classes of the annotations that are not of the task, so that no group has them."""
        return tuple(name for name in self.class_names if name not in self.groups["all"])

    @property
    def without_ground_truth(self) -> int:
        """Number of classes without any metric."""
        return int(np.sum(self.num_ground_truth == 0))

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """The metrics of `METRICS`, (K,) float64 each; NaN where the class has no ground truth of that size."""
        ap = self.precision.mean(axis=1)  # (10, K, 4)
        values = {
            "AP": ap[:, :, 0].mean(axis=0),
            "AP50": ap[0, :, 0],
            "AP75": ap[5, :, 0],
            "APs": ap[:, :, 1].mean(axis=0),
            "APm": ap[:, :, 2].mean(axis=0),
            "APl": ap[:, :, 3].mean(axis=0),
            "AR": self.recall[:, :, 0].mean(axis=0),
        }
        # The arrays are -1 for all thresholds and recalls of such a class, or for none of them.
        return {metric: np.where(value < 0, np.nan, value) for metric, value in values.items()}

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Group -> metric -> mean over the group's classes; None where none of them has ground truth of that size."""
        per_class = self.per_class()
        index = {name: i for i, name in enumerate(self.class_names)}
        result: dict[str, dict[str, float | None]] = {}
        for group, names in self.groups.items():
            members = [index[name] for name in names]
            row: dict[str, float | None] = {}
            for metric, values in per_class.items():
                known = values[members][~np.isnan(values[members])]
                row[metric] = float(known.mean()) if known.size else None
            result[group] = row
        return result


def evaluate(
    ground_truth: Path | GroundTruth,
    detections: Path | Sequence[dict[str, Any]] | Detections,
    class_groups: Mapping[str, Sequence[str]],
    *,
    classes: Sequence[str] | None = None,
    evaluator: str = "hotcoco",
    max_detections: int = 100,
    lvis: bool = False,
    per_class: int | None = None,
) -> Evaluation:
    """Score detections in COCO's results format against a COCO-format annotation file.

    Args:
        ground_truth: annotation JSON, or the ground truth read from one.
        detections: results JSON, or its list, see `inputs.read_detections` for what is refused; or what it returns.
        class_groups: class names of each group, such as {"maj": [...], "min": [...]}; "all" is added, and for LVIS
            the official frequency groups, counted on its whole training set, as "official-f", "-c" and "-r".
        classes: the task's classes, which "all" is over; a class that only the annotations have could not be learned.
            Default: all classes of the annotations.
        evaluator: "hotcoco", "pycocotools" or "lvis".
        max_detections: see `backends.precision_recall`.
        lvis: LVIS's federated rules instead of COCO's.
        per_class: AP Fixed: the number of detections of each class that count over all images, with no cap in an image,
            instead of `max_detections` (`fixed.py`).

    Raises:
        UserError: bad input, a group with a class that the annotations lack, or an unknown evaluator.
    """
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth, lvis=lvis)
    groups = checked_groups(truth, class_groups, classes)
    if lvis:
        groups |= official_groups(truth)
    found = detections if isinstance(detections, Detections) else read_detections(detections, truth)
    if per_class is not None:
        found = best_of_each_class(found, per_class)
        max_detections = max(1, most_in_an_image(found))
    precision, recall = precision_recall(truth, found, evaluator=evaluator, max_detections=max_detections, lvis=lvis)
    counted = truth.box_class[counted_boxes(truth, lvis)]
    return Evaluation(
        class_ids=truth.class_ids,
        class_names=truth.class_names,
        num_ground_truth=np.bincount(np.searchsorted(truth.class_ids, counted), minlength=len(truth.class_ids)),
        precision=precision,
        recall=recall,
        groups=groups,
        evaluator=evaluator,
        max_detections=max_detections,
        lvis=lvis,
        annotations=str(truth.path),
        annotations_digest=truth.digest(),
    )


def checked_groups(
    truth: GroundTruth, class_groups: Mapping[str, Sequence[str]], classes: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """The groups with "all" in front; arguments as of `evaluate`.

    Raises:
        UserError: a class that the annotations lack, a class twice in a group, or class names that are not unique.
    """
    names = truth.class_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{truth.path}: two classes have the name {twice!r}, so groups by name would be ambiguous.")
    cleaned = {group: tuple(map(clean_name, members)) for group, members in class_groups.items() if group != "all"}
    for group, members in cleaned.items():
        for name in members:
            if name not in names:
                raise UserError(f"{truth.path}: group {group!r}: {unknown_name('class', name, names)}")
        if len(set(members)) < len(members):
            raise UserError(f"Group {group!r} names a class twice.")
    known = set(names if classes is None else map(clean_name, classes))
    return {"all": tuple(name for name in names if name in known)} | cleaned


def official_groups(truth: GroundTruth) -> dict[str, tuple[str, ...]]:
    """LVIS's own frequency groups if the annotations give one for every class, else none."""
    if None in truth.frequency:
        return {}
    pairs = list(zip(truth.class_names, truth.frequency, strict=True))
    return {f"official-{group}": tuple(name for name, own in pairs if own == group) for group in ("f", "c", "r")}


def save_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write the raw arrays atomically as a compressed `.npz`; the same evaluation gives the same bytes."""
    about = {
        "groups": evaluation.groups,
        "evaluator": evaluation.evaluator,
        "max_detections": evaluation.max_detections,
        "lvis": evaluation.lvis,
        "annotations": evaluation.annotations,
        "annotations_digest": evaluation.annotations_digest,
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            class_ids=evaluation.class_ids,
            class_names=np.array(evaluation.class_names, dtype=np.str_),
            num_ground_truth=evaluation.num_ground_truth,
            precision=evaluation.precision,
            recall=evaluation.recall,
            about=np.array(json.dumps(about)),
        )


def load_evaluation(path: Path) -> Evaluation:
    """Read what `save_evaluation` wrote. Nothing in it is executed, and nothing in it is believed unchecked.

    Raises:
        UserError: no such file, or not one of these: another array, type, shape or size, or values out of range.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            size = sum(entry.file_size for entry in arrays.zip.infolist())
            if size > LARGEST_ARRAYS:
                raise ValueError(f"{size:,} bytes of arrays, more than {LARGEST_ARRAYS:,}")
            content = {name: arrays[name] for name in (*_ARRAYS, "class_names", "about")}
        about = decode_json(str(content.pop("about")).encode(), _About, name="`about`")
        names = tuple(map(str, content.pop("class_names").tolist()))
        found = Evaluation(class_names=names, **content, **msgspec.structs.asdict(about))
        problem = _problem(found)
    except Exception as error:  # zipfile, zlib, NumPy and JSON each have their own
        problem = str(error) or type(error).__name__
    if problem:
        raise UserError(f"{path}: not a file of per-class arrays of this program ({problem}).")
    return found


class _About(msgspec.Struct, forbid_unknown_fields=True):
    """The entry `about` of the file; see the fields of the same names in `Evaluation`."""

    groups: dict[str, tuple[str, ...]]
    evaluator: str
    max_detections: int
    lvis: bool
    annotations: str
    annotations_digest: str


_ARRAYS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "class_ids": (np.int64, (-1,)),
    "num_ground_truth": (np.int64, (-1,)),
    "precision": (np.float64, (10, 101, -1, 4)),
    "recall": (np.float64, (10, -1, 4)),
}
"""Type and shape of the arrays, -1 for the number of classes."""


def _problem(found: Evaluation) -> str:
    """What is wrong with the arrays; empty if nothing is."""
    classes = len(found.class_names)
    for name, (kind, shape) in _ARRAYS.items():
        array = getattr(found, name)
        wanted = tuple(classes if length < 0 else length for length in shape)
        if array.dtype != kind or array.shape != wanted:
            return f"`{name}` is {array.dtype} {array.shape}, not {np.dtype(kind)} {wanted}"
    for name in ("precision", "recall"):
        values = getattr(found, name)
        if not (((values >= 0) & (values <= 1)) | (values == -1)).all():  # also refuses NaN
            return f"`{name}` has values that are neither in [0, 1] nor -1"
        without = values == -1
        if (without != without.reshape(-1, classes, 4)[0]).any():
            return f"`{name}` lacks some values of a class, not all"
    if (found.num_ground_truth < 0).any():
        return "`num_ground_truth` has negative numbers"
    if len(set(found.class_names)) < classes or len(set(found.class_ids.tolist())) < classes:
        return "a class comes twice"
    if "all" not in found.groups:
        return "there is no group 'all'"
    for group, members in found.groups.items():
        if len(set(members)) < len(members) or not set(members) <= set(found.class_names):
            return f"group {group!r} has a class twice, or one without arrays"
    return ""
