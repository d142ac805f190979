"""Whether runs were made in the paper's setting: only beside such runs do the paper's numbers mean anything."""

from typing import Any

from cissod_bench.leaderboard.comparable import RunSet
from cissod_bench.results.run_key import NOT_STATED
from cissod_bench.tasks.official import unofficial
from cissod_bench.tasks.registry import TASKS

PAPER_DETECTOR = "r50-fpn"
"""Name of the preset of the paper's detector: Faster R-CNN with ResNet-50 and FPN (sec. 4.2)."""
PAPER_BATCH = 40
"""Images in a step of the paper: 8 labelled and 32 unlabelled (sec. 4.2)."""


def departures(run_set: RunSet) -> list[str]:
    """Where a set of runs departs from the paper's setting, in words; empty for a set that keeps to it.

    Args:
        run_set: runs of a task of the paper.
    """
    fields = run_set.fields
    task = TASKS[run_set.task]
    sizes = run_set.rows[0].runs[0].result.data
    found = ["the size of the data is not recorded"] if sizes is None else unofficial(run_set.task, sizes)
    if fields["detector"] != PAPER_DETECTOR:
        found.append(f"detector {fields['detector']} instead of {PAPER_DETECTOR}")
    if fields["backbone"] in (None, NOT_STATED):
        found.append(
            "no pretrained backbone" if fields["backbone"] is None else "the backbone's weights are not stated"
        )
    if fields["overrides"]:
        found.append(f"settings changed by --set: {', '.join(sorted(fields['overrides']))}")
    if fields["max_detections"] != task.max_detections:
        found.append(f"{fields['max_detections']} detections per image instead of {task.max_detections}")
    return found + _length(fields, task.iterations)


def _length(fields: Any, full: int) -> list[str]:
    """Why the schedule is not the paper's; with other numbers of images in a step it shows as many images."""
    if fields["batch"] is None:
        return ["the batch size is not stated"]
    images = sum(fields["batch"])
    wanted = round(full * PAPER_BATCH / images)
    if abs(fields["iterations"] - wanted) > 1:
        return [f"{fields['iterations']:,} iterations of {images} images instead of {wanted:,}"]
    return ["a shortened schedule"] if fields["shortened"] else []
