"""Scalars over iterations, as a run logs them: one JSON object a line."""

import json
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError
from cissod_bench.io import read_regular

SCALARS = "scalars.jsonl"
"""Log of the scalars in a run folder: names and values, with the number of iterations done as `step`."""
LARGEST_LOG = 2**28
"""Bytes of a log that is read."""
LARGEST_VALUE = 1e100
"""Magnitude of a value that can be averaged and drawn; nothing that a run logs comes near."""

Curve = tuple[list[int], list[float]]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Name -> (iterations, values) of everything that a run logged; where a step comes twice, the later one counts.

    Values that are not finite, or above `LARGEST_VALUE`, have no place in a curve and are left out.

    Args:
        folder: run folder; its log is `scalars.jsonl`, or `<timestamp>/vis_data/scalars.json` as mmengine writes it.

    Raises:
        UserError: a log is damaged.
    """
    points: dict[str, dict[int, float]] = {}
    for log in [*sorted(folder.glob("*/vis_data/scalars.json")), *folder.glob(SCALARS)]:
        for row in log_lines(log):
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and abs(value) <= LARGEST_VALUE:
                    points.setdefault(name, {})[row["step"]] = float(value)
    return {name: _sorted(values) for name, values in points.items()}


def log_lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that have a `step`. The last line may be cut short, as a run that was killed leaves it.

    Raises:
        UserError: no regular file, too large, or another line that is no JSON object with numbers of 64 bits.
    """
    try:
        lines = read_regular(log, LARGEST_LOG).splitlines()
    except OSError as error:
        raise UserError(f"{log}: cannot be read ({error.strerror}).") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)  # unlike others, it reads the NaN that Python writes
            if not isinstance(row, dict):
                raise ValueError("no object")
            step = row.get("step")
            if type(step) is int and 0 <= step < 2**53:
                [float(value) for value in row.values() if isinstance(value, int)]  # beyond a float's range it raises
                rows.append(row)
            elif step is not None:
                raise ValueError(f"step {step!r}"[:60])
        except (ValueError, RecursionError, OverflowError) as error:
            if number < len(lines):
                raise UserError(f"{log}: line {number} is damaged ({error}).") from None
    return rows


def _sorted(values: dict[int, float]) -> Curve:
    steps = sorted(values)
    return steps, [values[step] for step in steps]
