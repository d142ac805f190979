"""Custom tasks: the TOML file that describes one, its template and its rules."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cissod_bench.tasks.records import (
    TASKS,
    DataFiles,
    MinorityObjects,
    MinorityRule,
    MinoritySelection,
    SelectionRule,
    Task,
)
from cissod_bench.toml import read_toml

TEMPLATE = """\
# A task of your own for cissod-bench, over any data set in COCO form.
#   cissod-bench make-splits --task THIS_FILE
#   cissod-bench run --task THIS_FILE --method gbs
# Paths are relative to this file. Lines that start with '#' show defaults and alternatives.

name = "my-task"                  # part of the selection: another name, another split
title = "what it is, for tables"
version = 1                       # raise it whenever you change how the labelled images are selected

[data]
train_annotations = "train.json"  # COCO form; .gz and .xz work too
train_images = "images"           # file names in the annotations are relative to this folder
val_annotations = "val.json"
val_images = "images"
# Unlabelled images without annotations, in one folder, several, or by patterns. With a fraction of 1 all given labels
# are kept:
# unlabeled_images = "more"       # or ["more", "video/*/frames", "web/2024-*.jpg"]
# Without validation data, remove the two lines above and hold out a fraction of the training images:
# validation_fraction = 0.2

[groups]
minority = ["a rare class", "another one"]  # names as in the annotations; all other classes are the majority
# or all classes in at most this number of training images:
# max_images = 100
# or this number of random classes, the same ones for every seed of the split:
# random = 5
# random_seed = 0
# or groups by frequency in the labelled part: r up to 10 images, c up to 100, f above. Then (scenario 2 of the paper)
# the fraction is of all images, and every class gets at least `floor` boxes, 1 by default:
# frequency = [10, 100]

[labeled]
fraction = 0.1                    # of the training images that hold a majority class
# count = 500                     # or a number of images
floor = 10                        # smallest number of labelled boxes of each minority class
# minority_draw = "needed"        # "uniform": every image with a minority class, until all have their floor
# minority_objects = "drop"       # in D_m: "drop" (background), "ignore" (ignored region), "keep"
# stratify = false                # true: spread the images evenly by the rarest of their classes

[training]
# detector = "r50-fpn"            # `cissod-bench list detectors`
iterations = 10000                # length of the full schedule, which is called `paper`
# rfs_threshold = 0.1             # repeat factor sampling: classes in a smaller part of D_l are repeated
# crs_gamma = 0.5                 # class-rebalancing sampling of `gbs`
# max_detections = 100            # per image, at test time
"""

Name = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Number = int | float
"""A whole number in the file stays one, since the digest of a split covers it."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A table of the file. An entry that is left out is None if `Task` or `SelectionRule` has the default."""

    def given(self) -> dict[str, Any]:
        """The entries that the file gives."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class _Data(_Table):
    train_annotations: Name
    train_images: Name
    val_annotations: str = ""
    val_images: str = ""
    validation_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    unlabeled_images: Name | Annotated[tuple[Name, ...], Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if bool(self.val_annotations) == bool(self.validation_fraction):
            raise ValueError("needs either val_annotations, or validation_fraction to hold out training images.")
        if bool(self.val_annotations) != bool(self.val_images):
            raise ValueError("val_images is missing.")


class _Groups(_Table):
    minority: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    max_images: Count | None = None
    random: Count | None = None
    random_seed: Annotated[int, Meta(ge=0)] = 0
    frequency: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.minority, self.max_images, self.random, self.frequency)) != 1:
            raise ValueError("needs exactly one of minority, max_images, random and frequency.")
        if self.frequency and not 0 <= self.frequency[0] < self.frequency[1]:
            raise ValueError("frequency must be two whole numbers in ascending order, such as [10, 100].")


class _Labeled(_Table):
    fraction: Number | None = None
    count: Count | None = None
    floor: Annotated[int, Meta(ge=0)] | None = None
    minority_draw: MinoritySelection | None = None
    minority_objects: MinorityObjects | None = None
    stratify: bool | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and self.count is not None:
            raise ValueError("has both fraction and count; choose one.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, not {self.fraction}.")


class _Training(_Table):
    detector: str | None = None
    iterations: Count | None = None
    rfs_threshold: Number | None = None
    crs_gamma: Number | None = None
    max_detections: Count | None = None

    def __post_init__(self) -> None:
        if self.rfs_threshold is not None and self.rfs_threshold <= 0:
            raise ValueError(f"rfs_threshold must be above 0, not {self.rfs_threshold}.")


class _TaskFile(_Table):
    name: Name
    data: _Data
    groups: _Groups
    title: str | None = None
    version: Annotated[int, Meta(ge=0)] = 1
    labeled: _Labeled = msgspec.field(default_factory=_Labeled)
    training: _Training = msgspec.field(default_factory=_Training)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                f"name {self.name!r}: use letters, digits, '.', '_' and '-', at most 100; folders are named after it."
            )
        if self.name in TASKS:
            raise ValueError(f"{self.name!r} is the name of a built-in task. Choose another one.")


def read_task_file(path: Path) -> Task:
    """Read a custom task; see `TEMPLATE` for the entries. Its relative paths are relative to the file's folder.

    Raises:
        UserError: the file cannot be read, has an unknown entry, lacks a necessary one or has one out of range.
    """
    file = read_toml(path, _TaskFile, "task file", "`make-splits --template FILE` writes one to fill in.")
    data, groups = file.data, file.groups

    def located(name: str) -> str:
        return str((path.parent / name).resolve()) if name else ""

    unlabeled = data.unlabeled_images or ()
    rule = None
    if groups.random or groups.max_images:
        rule = MinorityRule(groups.random or 0, groups.random_seed, groups.max_images or 0)
    scenario = {"floor": 1, "coverage": True} if groups.frequency else {}
    return Task(
        name=file.name,
        title=file.name if file.title is None else file.title,
        version=file.version,
        dataset="custom",
        files=DataFiles(
            train_annotations=located(data.train_annotations),
            train_images=located(data.train_images),
            val_annotations=located(data.val_annotations),
            val_images=located(data.val_images),
            unlabeled_images=tuple(map(located, [unlabeled] if isinstance(unlabeled, str) else unlabeled)),
        ),
        minority=groups.minority or (),
        minority_rule=rule,
        frequency_groups=groups.frequency is not None,
        group_limits=groups.frequency or (10, 100),
        selection=SelectionRule(**(scenario | file.labeled.given())),
        validation_fraction=data.validation_fraction,
        **file.training.given(),
    )
