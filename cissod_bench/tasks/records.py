"""The tasks of the benchmark as records: data, class groups, how D_l is selected, defaults of training and evaluation.

A task says *what* is compared. Raise its `version` whenever its protocol changes: results of different versions are
never put into one table.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MinorityObjects = Literal["drop", "ignore", "keep"]
MinoritySelection = Literal["needed", "uniform"]

VOC_CLASSES = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
"""COCO's names of the 20 PASCAL VOC classes, the minority of `coco-split1` (paper sec. 4.1)."""

COCO_SPLIT2_MINORITY = (
    "airplane", "bus", "boat", "traffic light", "fire hydrant", "parking meter", "bird", "cat", "horse", "sheep",
    "cow", "elephant", "zebra", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "baseball glove", "wine glass", "banana", "apple", "sandwich", "broccoli", "hot dog", "pizza", "bed",
    "dining table", "tv", "mouse", "remote", "keyboard", "oven", "refrigerator", "book", "vase", "hair drier",
    "toothbrush",
)  # fmt: skip
"""The authors' random half of COCO's classes (release, `ssod/datasets/cate.py`), the minority of `coco-split2`."""


SHAPES_MINORITY = (
    "dotted ball", "broken ring", "crutch cross", "six-pointed star", "notched square", "hollow triangle",
)  # fmt: skip
"""The second class of each pair of look-alikes in the embedded data set (`synthetic/shapes.py`)."""


@dataclass(frozen=True)
class SelectionRule:
    """How the labelled images D_l are selected from the training images.

    Scenario 1 (`coverage=False`): D_m is `fraction` of the images that hold a majority class, D_s holds at least
    `floor` boxes of every minority class. Scenario 2 (`coverage=True`): `fraction` of all images, at least `floor`
    boxes of every class.

    Attributes:
        fraction: part of the candidates to select, 0 to 1.
        count: number of candidates to select, instead of the fraction.
        floor: boxes of each class that D_s (scenario 2: D_l) holds at least, crowds not counted.
        coverage: scenario 2.
        minority_draw: how D_s is selected: `needed` takes only images that hold a class still under the floor,
            `uniform` takes every image that holds a minority class, until each class has its floor.
        minority_objects: what becomes of minority objects in D_m: `drop` trains them as background, `ignore` makes
            them ignored regions, `keep` annotates them.
        stratify: spread the images over D_m evenly by the rarest of their classes.
    """

    fraction: float = 0.1
    count: int | None = None
    floor: int = 10
    coverage: bool = False
    minority_draw: MinoritySelection = "needed"
    minority_objects: MinorityObjects = "drop"
    stratify: bool = False


@dataclass(frozen=True)
class MinorityRule:
    """Minority classes that are chosen, at random or by frequency, instead of named.

    Attributes:
        random: number of classes chosen at random.
        seed: of that choice; the split's own seed has no part in it.
        max_images: classes in at most that many training images, those held out included, so that every fold has the
            same groups.
    """

    random: int = 0
    seed: int = 0
    max_images: int = 0


@dataclass(frozen=True)
class DataFiles:
    """Where the data of a task is: absolute paths, or paths relative to the data root.

    Attributes:
        train_annotations: training annotations; D_s and D_u come from them, D_m as well unless it has its own file.
        train_images: folder of the training images.
        val_annotations: validation annotations; empty if a part of the training images is held out.
        val_images: folder of the validation images.
        majority_annotations: annotations that D_m comes from, if that is another data set (`coco-o365`).
        unlabeled_images: folders, or patterns of files, whose images join D_u without annotations.
    """

    train_annotations: str
    train_images: str
    val_annotations: str = ""
    val_images: str = ""
    majority_annotations: str = ""
    unlabeled_images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One benchmark task.

    Attributes:
        name: its name on the command line.
        title: one line for lists and tables.
        version: protocol version.
        dataset: whose quirks the reader handles ("coco", "objects365", "lvis", "shapes", "custom").
        files: annotation files and image folders; None if the split folder itself holds everything (`shapes`).
        minority: names of the minority classes; empty if a rule, the data set or frequencies decide.
        minority_rule: how the minority classes are chosen if they are not named.
        frequency_groups: group by images in D_l (r, c, f), as the paper does for LVIS, instead of maj/min.
        group_limits: the largest number of images in D_l for a class of r, and for a class of c.
        selection: how D_l is selected.
        validation_fraction: part of the training images held out for validation, the same for every seed.
        detector: name of the default detector preset (`training/recipes/detectors.py`).
        iterations: length of the paper's schedule.
        rfs_threshold: oversampling threshold t of repeat factor sampling on D_l (release: 0.1 COCO, 0.02, 0.01 LVIS).
        crs_gamma: range coefficient gamma of class-rebalancing sampling (paper sec. 4.2).
        max_detections: detections kept per image at test time.
    """

    name: str
    title: str
    version: int
    dataset: Literal["coco", "objects365", "lvis", "shapes", "custom"]
    files: DataFiles | None
    minority: tuple[str, ...] = ()
    minority_rule: MinorityRule | None = None
    frequency_groups: bool = False
    group_limits: tuple[int, int] = (10, 100)
    selection: SelectionRule = field(default_factory=SelectionRule)
    validation_fraction: float = 0.0
    detector: str = "r50-fpn"
    iterations: int = 180_000
    rfs_threshold: float = 0.1
    crs_gamma: float = 0.5
    max_detections: int = 100

    @property
    def keeps_all_labels(self) -> bool:
        """Whether every annotated image is labelled, since the unlabelled ones are in a folder."""
        folder = self.files is not None and bool(self.files.unlabeled_images)
        return folder and self.selection.fraction == 1 and self.selection.count is None

    @property
    def split_options(self) -> dict[str, Any]:
        """Everything about the task that decides a split: `Split.options` of a split with nothing of its own.

        Unused options are left out, so that a new option does not change the digest of splits that do not use it.
        """
        rule = asdict(self.selection)
        optional = {
            "count": rule.pop("count"),
            "stratify": rule.pop("stratify"),
            "minority_rule": asdict(self.minority_rule) if self.minority_rule else None,
            "group_limits": list(self.group_limits) if self.frequency_groups else None,
            "validation_fraction": self.validation_fraction,
        }
        return {**rule, **{name: value for name, value in optional.items() if value}}


_COCO = DataFiles(
    train_annotations="coco/annotations/instances_train2017.json",
    train_images="coco/train2017",
    val_annotations="coco/annotations/instances_val2017.json",
    val_images="coco/val2017",
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="coco-split1",
            title="MS-COCO, the 20 PASCAL VOC classes as minority (paper Table 1, split 1)",
            version=1,
            dataset="coco",
            files=_COCO,
            minority=VOC_CLASSES,
            # The release has 324 minority images; `uniform` selects about as many, `needed` about 90 (docs/splits.md).
            selection=SelectionRule(minority_draw="uniform"),
        ),
        Task(
            name="coco-split2",
            title="MS-COCO, 40 of 80 classes as minority (paper Table 1, split 2)",
            version=1,
            dataset="coco",
            files=_COCO,
            minority=COCO_SPLIT2_MINORITY,
        ),
        Task(
            name="coco-o365",
            title="MS-COCO labelled, Objects365 v2 unlabelled, 287 classes beyond COCO's as minority (paper Table 2)",
            version=1,
            dataset="objects365",
            files=DataFiles(
                train_annotations="objects365/zhiyuan_objv2_train.json",
                # File names in the split include the folder of the data set, since the images come from two.
                train_images=".",
                val_annotations="objects365/zhiyuan_objv2_val.json",
                val_images="objects365/val",
                majority_annotations="coco/annotations/instances_train2017.json",
            ),
            selection=SelectionRule(fraction=1.0),
            iterations=360_000,
            rfs_threshold=0.02,
            crs_gamma=0.05,
        ),
        Task(
            name="lvis",
            title="LVIS v1, 1,203 long-tailed classes, groups by frequency in the labelled part (paper Table 3)",
            version=1,
            dataset="lvis",
            files=DataFiles(
                train_annotations="lvis/lvis_v1_train.json",
                train_images="coco",  # file names in the split name the folder, train2017 or val2017
                val_annotations="lvis/lvis_v1_val.json",
                val_images="coco",
            ),
            frequency_groups=True,
            selection=SelectionRule(floor=1, coverage=True),
            rfs_threshold=0.01,
            crs_gamma=0.05,
            max_detections=300,
        ),
        Task(
            name="shapes",
            title="embedded data set, scenario 1: six majority and six minority classes, made by the package itself",
            version=1,
            dataset="shapes",
            files=None,
            minority=SHAPES_MINORITY,
            detector="r18-small-pretrained",
            iterations=6_000,
            # Between the image frequencies of minority (about 0.1) and majority classes (over 0.2): only the former
            # repeat.
            rfs_threshold=0.2,
        ),
        Task(
            name="shapes-lt",
            title="embedded data set, scenario 2: twelve long-tailed classes, made by the package itself",
            version=1,
            dataset="shapes",
            files=None,
            frequency_groups=True,
            # LVIS has about 10,000 labelled images, this data set 150.
            group_limits=(5, 40),
            selection=SelectionRule(floor=1, coverage=True),
            detector="r18-small-pretrained",
            iterations=6_000,
            rfs_threshold=0.2,
        ),
    )
}
