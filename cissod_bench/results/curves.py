"""Scalars over iterations, as a run logs them: one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path

from cissod_bench.evaluation import METRICS

SCALARS = "scalars.jsonl"
"""Log of the scalars in a run folder: names and values, with the number of iterations done as `step`."""

Curve = tuple[list[int], list[float]]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Name -> (iterations, values) of everything that a run logged; where a step comes twice, the later one counts.

    Lines that are cut short (a run that was killed) are left out.

    Args:
        folder: run folder; its log is `scalars.jsonl`, or `<timestamp>/vis_data/scalars.json` as mmengine writes it.
    """
    points: dict[str, dict[int, float]] = {}
    for log in [*sorted(folder.glob("*/vis_data/scalars.json")), *folder.glob(SCALARS)]:
        for line in log.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                continue
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    points.setdefault(name, {})[row["step"]] = float(value)
    return {name: _sorted(values) for name, values in points.items()}


def metric_curves(folder: Path, groups: Sequence[str], metric: str = "AP") -> dict[str, Curve]:
    """Group -> AP over iterations, for the groups that the run evaluated on the way."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}")
    curves = read_curves(folder)
    return {group: curves[f"{group}/{metric}"] for group in groups if f"{group}/{metric}" in curves}


def _sorted(values: dict[int, float]) -> Curve:
    steps = sorted(values)
    return steps, [values[step] for step in steps]
