"""Whether runs were made in the paper's setting: only beside such runs do the paper's numbers mean anything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.comparable import Row, RunSet
from cissod_bench.results.run_key import NOT_STATED
from cissod_bench.tasks.official import CLASSES, SIZES, unofficial
from cissod_bench.tasks.records import Task
from cissod_bench.tasks.registry import TASKS

PAPER_DETECTOR = "r50-fpn"
"""Name of the preset of the paper's detector: Faster R-CNN with ResNet-50 and FPN (sec. 4.2)."""
PAPER_BACKBONE = "5891d200"
"""How the SHA-256 of its first weights begins: `resnet50_msra-5891d200.pth`, MSRA's ResNet-50 in mmdet's names."""
PAPER_BATCH = 40
"""Images in a step of the paper: 8 labelled and 32 unlabelled (sec. 4.2)."""


@dataclass(frozen=True)
class Standard:
    """A method as it is today: its version, and the default of every option."""

    version: int
    options: Mapping[str, Any]


Standards = Mapping[str, Standard]
"""The methods of this package by name."""


def is_standard(row: Row, standards: Standards, changed: Mapping[str, Any] = {}) -> bool:
    """Whether a row is a method of this package at today's version, with its defaults but for `changed`."""
    return not not_standard(row, standards, changed)


def not_standard(row: Row, standards: Standards, changed: Mapping[str, Any] = {}) -> str:
    """Why a row is not what `is_standard` says; empty if it is."""
    standard, key = standards.get(row.method), row.runs[0].result.key
    if standard is None:
        return "no method of this package"
    if key.method_version is None:
        return "the version of the method is not recorded"
    if key.method_version != standard.version:
        return f"version {key.method_version} of the method instead of {standard.version}"
    if key.resolved_options is None:
        return "the options of the method are not recorded in full"
    different = other_options(row, standard, changed)
    return f"other options than the defaults: {', '.join(different)}" if different else ""


def other_options(row: Row, standard: Standard, changed: Mapping[str, Any] = {}) -> list[str]:
    """Options whose recorded values differ from today's defaults with `changed`; none where they are not recorded."""
    stated = row.runs[0].result.key.resolved_options
    if stated is None:
        return []
    wanted = {**standard.options, **changed}
    return sorted(name for name in {*wanted, *stated} if wanted.get(name) != stated.get(name))


def departures(run_set: RunSet) -> list[str]:
    """Where a set of runs departs from the paper's setting, in words; empty for a set that keeps to it.

    Args:
        run_set: runs of a task of the paper.
    """
    fields = run_set.fields
    task = TASKS[run_set.task]
    found = [] if fields["protocol"] == task.version else [f"protocol {fields['protocol']} instead of {task.version}"]
    found += [*_of_data(run_set, task), *_of_split(run_set, task)]
    if fields["detector"] != PAPER_DETECTOR or fields["detector_digest"] is not None:
        own = "" if fields["detector_digest"] is None else " from a file"
        found.append(f"detector {fields['detector']}{own} instead of {PAPER_DETECTOR}")
    if fields["backbone"] is None:
        found.append("no pretrained backbone")
    elif fields["backbone"] == NOT_STATED:
        found.append("the backbone's weights are not stated")
    elif not fields["backbone"].startswith(PAPER_BACKBONE):
        found.append(f"backbone {fields['backbone'][:8]} instead of {PAPER_BACKBONE}")
    if fields["overrides"]:
        found.append(f"settings changed by --set: {', '.join(sorted(fields['overrides']))}")
    if fields["max_detections"] != task.max_detections:
        found.append(f"{fields['max_detections']} detections per image instead of {task.max_detections}")
    return found + _length(fields, task.iterations)


def _of_data(run_set: RunSet, task: Task) -> Iterator[str]:
    """Where the data of a run is not the official one."""
    known = [run.result.data for row in run_set.rows for run in row.runs if run.result.data is not None]
    if not known:
        yield "the size of the data is not recorded"
    missing = [name for name in SIZES[task.name] if any(name not in sizes for sizes in known)]
    if missing:
        yield f"the number of {', '.join(name.replace('_', ' ') for name in missing)} is not recorded"
    yield from dict.fromkeys(text for sizes in known for text in unofficial(task.name, sizes))
    classes = run_set.rows[0].runs[0].result.groups["all"].classes
    if classes != CLASSES[task.name]:
        yield f"{classes:,} classes instead of {CLASSES[task.name]:,}"


def _of_split(run_set: RunSet, task: Task) -> Iterator[str]:
    """Where the split was made in another way than the task's; runs of one split have one way."""
    known = (run.result.split_options for row in run_set.rows for run in row.runs)
    options = next((each for each in known if each is not None), None)
    if options is None:
        yield "how the split was made is not recorded"
        return
    if options.get("imported"):
        yield "labelled images from an imported list"
    if options.get("fold"):
        yield "a fold of the training images for validation"
    for name in sorted({*options, *task.split_options} - {"imported", "fold", "label_budget"}):
        here, there = (canonical_json(each.get(name)) for each in (options, task.split_options))
        if here != there:
            yield f"split with {name} {here} instead of {there}"


def _length(fields: Any, full: int) -> list[str]:
    """Why the schedule is not the paper's; with other numbers of images in a step it shows as many images."""
    if fields["batch"] is None:
        return ["the batch size is not stated"]
    images = sum(fields["batch"])
    wanted = round(full * PAPER_BATCH / images)
    if abs(fields["iterations"] - wanted) > 1:
        return [f"{fields['iterations']:,} iterations of {images} images instead of {wanted:,}"]
    return ["a shortened schedule"] if fields["shortened"] else []
