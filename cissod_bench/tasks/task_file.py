"""Custom tasks: the TOML file that describes one, its template, and the checks."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.tasks.records import (
    TASKS,
    DataFiles,
    MinorityObjects,
    MinorityRule,
    MinoritySelection,
    SelectionRule,
    Task,
)

TEMPLATE = """\
# A task of your own for cissod-bench, over any data set in COCO form.
#   cissod-bench make-splits --from-task THIS_FILE --out splits/mine
#   cissod-bench run --task THIS_FILE --split splits/mine --method gbs
# Paths are relative to this file. Lines that start with '#' show defaults and alternatives.

name = "my-task"                  # part of the draw: another name, another split
title = "what it is, for tables"
version = 1                       # raise it whenever you change how the labelled images are drawn

[data]
train_annotations = "train.json"  # COCO form; .gz and .xz work too
train_images = "images"           # file names in the annotations are relative to this folder
val_annotations = "val.json"
val_images = "images"
# Without a validation part, leave out the two lines above and hold out a part of the training images:
# validation_fraction = 0.2

[groups]
minority = ["a rare class", "another one"]  # names as in the annotations; all other classes are the majority
# or the classes in at most so many training images:
# max_images = 100
# or so many classes at random, the same ones for every seed of the draw:
# random = 5
# random_seed = 0
# or by frequency in the labelled part: r up to 10 images, c up to 100, f above. Then (scenario 2 of the paper) the
# fraction is one of all images, and every class gets `floor` boxes, 1 unless you say otherwise:
# frequency = [10, 100]

[labeled]
fraction = 0.1                    # of the training images that hold a majority class
# count = 500                     # or their number
floor = 10                        # labelled boxes of each minority class, at least
# minority_draw = "needed"        # "uniform": every image with a minority class, until all have their floor
# minority_objects = "drop"       # in majority images: "drop" (background), "ignore" (ignored region), "keep"
# stratify = false                # true: spread the images evenly by the rarest of their classes

[training]
# detector = "r50-fpn"            # `cissod-bench list detectors`
iterations = 10000                # of the full schedule, called `paper`
# rfs_threshold = 0.1             # repeat factor sampling: classes in fewer labelled images than this part repeat
# crs_gamma = 0.5                 # class-rebalancing sampling of `gbs`
# max_detections = 100            # per image, at test time
"""

_ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "": {"name": str, "title": str, "version": int, "data": dict, "groups": dict, "labeled": dict, "training": dict},
    "data": {
        "train_annotations": str,
        "train_images": str,
        "val_annotations": str,
        "val_images": str,
        "validation_fraction": (float, int),
    },
    "groups": {"minority": list, "max_images": int, "random": int, "random_seed": int, "frequency": list},
    "labeled": {
        "fraction": (float, int),
        "count": int,
        "floor": int,
        "minority_draw": str,
        "minority_objects": str,
        "stratify": bool,
    },
    "training": {
        "detector": str,
        "iterations": int,
        "rfs_threshold": (float, int),
        "crs_gamma": (float, int),
        "max_detections": int,
    },
}


def read_task_file(path: Path) -> Task:
    """Read a custom task; see `TEMPLATE` for the entries.

    Raises:
        UserError: the file cannot be read, has an unknown entry, lacks a necessary one or has one out of range.
    """
    content = _read_toml(path)
    sections = {name: _section(path, content, name) for name in _ENTRIES}
    top, data, groups, labeled, training = (sections[name] for name in ("", "data", "groups", "labeled", "training"))
    problem = _first_problem(top, data, groups, labeled, training)
    if problem:
        raise UserError(f"{path}: {problem}")

    def located(entry: str) -> str:
        return str((path.parent / data[entry]).resolve()) if data.get(entry) else ""

    return Task(
        name=top["name"],
        title=top.get("title", top["name"]),
        version=top.get("version", 1),
        dataset="custom",
        files=DataFiles(**{entry: located(entry) for entry in _ENTRIES["data"] if entry != "validation_fraction"}),
        minority=tuple(groups.get("minority", ())),
        minority_rule=_minority_rule(groups),
        frequency_groups="frequency" in groups,
        group_limits=tuple(groups.get("frequency", (10, 100))),
        selection=_selection_rule(labeled, coverage="frequency" in groups),
        validation_fraction=float(data.get("validation_fraction", 0)),
        **training,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no task file {path}. `make-splits --template FILE` writes one to fill in.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}.") from None


def _section(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    """One table of the file, its entries known and of the right type."""
    section = content.get(name, {}) if name else content
    where = f"[{name}] " if name else ""
    for entry, value in section.items():
        if entry not in _ENTRIES[name]:
            raise UserError(f"{path}: {unknown_name(f'entry {where}'.strip(), entry, _ENTRIES[name])}")
        wanted = _ENTRIES[name][entry]
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UserError(f"{path}: {where}{entry} must be a {_kind(kinds[0])}, not {value!r}.")
    return section


def _kind(kind: type) -> str:
    return {str: "text", int: "whole number", float: "number", bool: "true or false", list: "list", dict: "table"}[kind]


def _first_problem(
    top: dict[str, Any], data: dict[str, Any], groups: dict[str, Any], labeled: dict[str, Any], training: dict[str, Any]
) -> str | None:
    """What is wrong with the values, as a sentence."""
    ways = [entry for entry in ("minority", "max_images", "random", "frequency") if entry in groups]
    limits = groups.get("frequency", [10, 100])
    whole = all(isinstance(limit, int) and not isinstance(limit, bool) for limit in limits)
    held_out = data.get("validation_fraction", 0)
    checks = (
        (not top.get("name"), "the entry name is missing."),
        (
            not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|", top.get("name", "")),
            f"name {top.get('name')!r} must be of letters, digits, '.', '_' and '-': folders are named after it.",
        ),
        (top.get("name") in TASKS, f"{top.get('name')!r} is the name of a built-in task. Choose another one."),
        (not data.get("train_annotations"), "[data] train_annotations is missing."),
        (not data.get("train_images"), "[data] train_images is missing."),
        (
            bool(data.get("val_annotations")) == bool(held_out),
            "[data] needs val_annotations, or validation_fraction to hold out training images; one of the two.",
        ),
        (bool(data.get("val_annotations")) != bool(data.get("val_images")), "[data] val_images is missing."),
        (not 0 <= held_out < 1, "[data] validation_fraction must be at least 0 and below 1."),
        (len(ways) != 1, "[groups] needs exactly one of minority, max_images, random and frequency."),
        (groups.get("minority") == [], "[groups] minority is empty."),
        (not all(isinstance(name, str) for name in groups.get("minority", ())), "[groups] minority must be names."),
        (groups.get("max_images", 1) < 1, "[groups] max_images must be at least 1."),
        (groups.get("random", 1) < 1, "[groups] random must be at least 1."),
        (
            len(limits) != 2 or not whole or not 0 <= limits[0] < limits[1],
            "[groups] frequency must be two whole numbers in ascending order, such as [10, 100].",
        ),
        ("fraction" in labeled and "count" in labeled, "[labeled] has both fraction and count; choose one."),
        (not 0 < labeled.get("fraction", 0.1) <= 1, "[labeled] fraction must be above 0 and at most 1."),
        (labeled.get("count", 1) < 1, "[labeled] count must be at least 1."),
        (labeled.get("floor", 0) < 0, "[labeled] floor must not be negative."),
        *(
            (labeled.get(entry, names[0]) not in names, f"[labeled] {entry} must be one of {', '.join(names)}.")
            for entry, names in (
                ("minority_draw", get_args(MinoritySelection)),
                ("minority_objects", get_args(MinorityObjects)),
            )
        ),
        *(
            (training.get(entry, 1) <= 0, f"[training] {entry} must be positive.")
            for entry in ("iterations", "rfs_threshold", "max_detections")
        ),
    )
    return next((sentence for wrong, sentence in checks if wrong), None)


def _minority_rule(groups: dict[str, Any]) -> MinorityRule | None:
    if "random" not in groups and "max_images" not in groups:
        return None
    return MinorityRule(groups.get("random", 0), groups.get("random_seed", 0), groups.get("max_images", 0))


def _selection_rule(labeled: dict[str, Any], *, coverage: bool) -> SelectionRule:
    defaults = SelectionRule(floor=1, coverage=True) if coverage else SelectionRule()
    return replace(defaults, **labeled)
