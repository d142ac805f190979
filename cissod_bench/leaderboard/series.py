"""What charts of a section show: AP of every class by frequency, AP over iterations."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cissod_bench.errors import UserError
from cissod_bench.evaluation import load_evaluation
from cissod_bench.leaderboard.curves import Curve, metric_curves
from cissod_bench.leaderboard.sections import Entry, Section


@dataclass(frozen=True)
class ClassSeries:
    """AP per class of the rows of a section.

    Attributes:
        names: classes by falling number of boxes in D_l, or by falling AP of the first row.
        order: which of the two, in words.
        values: row label -> AP in [0, 1] of every class, None without ground truth.
    """

    names: tuple[str, ...]
    order: str
    values: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class RunCurve:
    """AP of one group over the iterations of one run; `first` is set for the first run of its row."""

    label: str
    group: str
    row: int
    first: bool
    curve: Curve


def class_series(section: Section) -> ClassSeries | None:
    """AP per class, mean over training seeds; None where no row has its per-class arrays."""
    means = {entry.label: _class_means(entry) for entry in section.entries}
    known = {label: found for label, found in means.items() if found}
    if not known:
        return None
    boxes = _labeled_boxes(section)
    first = next(iter(known.values()))
    if boxes and set(first) <= set(boxes):
        names, order = sorted(first, key=lambda name: (-boxes[name], name)), "boxes in D_l"
    else:
        names, order = sorted(first, key=lambda name: (-first[name], name)), "AP of the first row"
    values = {label: tuple(found.get(name) for name in names) for label, found in known.items()}
    return ClassSeries(tuple(names), order, values)


def run_curves(section: Section) -> list[RunCurve]:
    """AP over iterations of every run that was evaluated more than once."""
    return [
        RunCurve(entry.label, group, row, run is entry.runs[0], curve)
        for row, entry in enumerate(section.entries)
        for run in entry.runs
        for group, curve in metric_curves(run.path.parent, section.groups).items()
        if len(curve[0]) > 1
    ]


def split_statistics(section: Section) -> tuple[Path, dict[str, object]] | None:
    """`statistics.json` of the split that the section's runs were trained on, None where it is not there any more.

    Raises:
        UserError: the file is there and damaged.
    """
    split = section.entries[0].runs[0].result.split
    path = Path(split) / "statistics.json" if split else None
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        for row in content["classes"]:
            int(row["train_boxes"]), int(row["labeled_boxes"]), str(row["name"]), str(row["group"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the statistics of a split ({error!r}); make the split again.") from None
    return path, content


def _labeled_boxes(section: Section) -> dict[str, int]:
    found = split_statistics(section)
    rows = found[1]["classes"] if found else []
    return {row["name"]: row["labeled_boxes"] for row in rows}  # type: ignore[attr-defined]


def _class_means(entry: Entry) -> dict[str, float]:
    """Class name -> AP, without classes that have no ground truth; empty where a run has no usable arrays."""
    collected: list[dict[str, float]] = []
    for run in entry.runs:
        name = run.result.files.get("per_class")
        if name is None:
            return {}
        try:
            evaluation = load_evaluation(run.path.parent / name)
        except UserError:
            return {}
        pairs = zip(evaluation.class_names, evaluation.per_class()["AP"].tolist(), strict=True)
        collected.append({name: value for name, value in pairs if not np.isnan(value)})
    return {name: float(np.mean([row[name] for row in collected])) for name in collected[0]}
