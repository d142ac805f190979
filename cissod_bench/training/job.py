"""A run before it runs: everything that was asked for, looked up, read and checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation.inputs import read_ground_truth
from cissod_bench.io import sha256_file
from cissod_bench.methods.base import Context, Method, MethodConfig
from cissod_bench.methods.registry import get_method
from cissod_bench.splits.folder import ID_FILES, Split, load_split
from cissod_bench.splits.images import missing_images
from cissod_bench.ssod.hooks.compiled import check_compiler
from cissod_bench.ssod.precision import Amp, check_amp
from cissod_bench.tasks.registry import Task, get_task
from cissod_bench.training.backbone import check_backbone
from cissod_bench.training.detectors import Detector, get_detector
from cissod_bench.training.loggers import choose_loggers
from cissod_bench.training.scaling import scaled_optimizer
from cissod_bench.training.schedules import Schedule, get_schedule
from cissod_bench.training.validation import read_validation


@dataclass(frozen=True)
class DataPlaces:
    """Where a run finds its images and the annotations that it is evaluated on.

    Attributes:
        train_images: folder of the training images.
        val_annotations: annotations of the validation images.
        val_images: their folder.
        hidden_annotations: all training annotations, for the diagnosis of pseudo labels only; None to go without.
    """

    train_images: Path
    val_annotations: Path
    val_images: Path
    hidden_annotations: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run: task x method x schedule x seed, with everything looked up.

    Attributes:
        task, method, schedule, detector: the records.
        options: the method's options.
        changed_options: those of them that differ from the method's defaults.
        method_config: what the method puts into the framework.
        split: the split, verified.
        places: images and validation annotations.
        out: the run folder.
        seed: training seed.
        iterations: length of the run.
        processes: number of training processes over all nodes, on one GPU each where the device is "cuda".
        device: "cuda" or "cpu".
        workers: loader processes for each of them.
        threads: threads of PyTorch's CPU operators.
        amp: mixed precision, see `precision.py`; None for single precision.
        compile: whether backbone and neck are compiled, see `compiled.py`.
        evaluator: evaluation backend.
        backbone: file with backbone weights, None for training from scratch.
        backbone_digest: its SHA-256.
        backbone_prefix: what the names of its weights begin with, None for nothing.
        validation_images: images to evaluate on, see `validation.py`.
        validation_digest: SHA-256 of the file of their annotations.
        damaged_images: so many training images may be damaged, see `damaged.py`.
        overrides: settings of the resolved configuration that are set otherwise, by dotted name (`overrides.py`).
        loggers: where scalars go beside the run folder, see `loggers.py`.
    """

    task: Task
    method: Method
    schedule: Schedule
    detector: Detector
    options: msgspec.Struct
    changed_options: dict[str, Any]
    method_config: MethodConfig
    split: Split
    places: DataPlaces
    out: Path
    seed: int
    iterations: int
    processes: int
    device: str
    workers: int
    threads: int
    amp: Amp
    compile: bool
    evaluator: str
    backbone: Path | None
    backbone_digest: str | None
    backbone_prefix: str | None
    validation_images: list[dict[str, Any]]
    validation_digest: str
    damaged_images: int
    overrides: dict[str, Any]
    loggers: tuple[str, ...]

    @property
    def burn_in(self) -> int:
        """First iterations on labelled images alone."""
        return round(self.detector.burn_in * self.iterations)

    @property
    def shortened(self) -> bool:
        """Whether fewer images are seen than the full schedule with the preset's number of GPUs would show."""
        full = self.task.iterations * sum(self.detector.per_gpu) * self.detector.reference_gpus
        return self.iterations * sum(self.batch) < full

    @property
    def batch(self) -> tuple[int, int]:
        """Labelled and unlabelled images in one step over all processes."""
        labeled, unlabeled = self.detector.per_gpu
        return labeled * self.processes, unlabeled * self.processes

    @property
    def scale(self) -> float:
        """Images in a step over those that the preset is meant for, see `scaling.py`."""
        return self.processes / self.detector.reference_gpus

    @property
    def optimizer(self) -> dict[str, Any]:
        """The preset's optimizer configuration, scaled."""
        return scaled_optimizer(self.detector.optimizer, self.scale)

    @property
    def learning_rate(self) -> float:
        """The scaled learning rate."""
        return float(self.optimizer["lr"])


def resolve_job(
    *,
    task: str,
    method: str,
    split: Path,
    out: Path,
    data_root: Path,
    schedule: str = "paper",
    detector: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    iterations: int | None = None,
    backbone: Path | None = None,
    evaluator: str = "hotcoco",
    hidden: Path | None = None,
    workers: int = 2,
    threads: int = 1,
    device: str = "cpu",
    processes: int = 1,
    damaged_images: int = 10,
    overrides: Mapping[str, Any] | None = None,
    loggers: Sequence[str] | None = None,
    look_for_images: bool = True,
    amp: str | None = None,
    compile: bool = False,
) -> Job:
    """Look up and check everything a run needs, before anything is written.

    All but `look_for_images` is what the attributes of `Job` say, or names to look up. That one is whether to look for
    every image on disk: once a run is enough, however many processes it has.

    Raises:
        UserError: something does not exist or does not fit; the message says what to do.
    """
    task_record, method_record, schedule_record = get_task(task), get_method(method), get_schedule(schedule)
    detector_record = get_detector(detector or task_record.detector)
    if evaluator not in ("hotcoco", "pycocotools"):
        raise unknown_name("evaluator", evaluator, ("hotcoco", "pycocotools"))
    precision = check_amp(amp, device)
    if compile:
        check_compiler(device)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Give the folder for the run.")
    split_record = read_split(split, task_record)
    if hidden is not None and not hidden.is_file():
        raise UserError(f"--hidden {hidden}: no such file. Give the full training annotations, or leave it out.")
    places = find_data(task_record, split_record, data_root, hidden)
    images, classes = read_validation(task_record, places.val_annotations)
    check_classes(split_record, places.val_annotations, classes)
    if look_for_images:
        check_images(split_record, places, images)
    if places.hidden_annotations is not None:
        read_ground_truth(places.hidden_annotations)
    prefix = None
    if backbone is not None:
        if not backbone.is_file():
            raise UserError(
                f"--backbone {backbone}: no such file. Give {detector_record.backbone_file}, or leave it out "
                "to train from scratch; weights are never downloaded."
            )
        model = detector_record.model(len(split_record.classes), task_record.max_detections)
        prefix = check_backbone(backbone, model["backbone"], detector_record.backbone_file)
    check_scale(detector_record, split_record, processes)
    length = iterations or schedule_record.length(task_record, processes / detector_record.reference_gpus)
    context = Context(
        num_classes=len(split_record.classes),
        iterations=length,
        burn_in=round(detector_record.burn_in * length),
        unsup_weight=detector_record.semi["unsup_weight"],
        theta=detector_record.theta,
        rfs_threshold=task_record.rfs_threshold,
        crs_gamma=task_record.crs_gamma,
        labeled_images=split_record.counts["labeled_images"],
        labeled_boxes=labeled_boxes(split_record),
        minority=minority_labels(split_record),
        minority_images=split_record.folder / ID_FILES["minority"],
    )
    method_options = method_record.options(options or {})
    defaults = msgspec.structs.asdict(method_record.options({}))
    return Job(
        task=task_record,
        method=method_record,
        schedule=schedule_record,
        detector=detector_record,
        options=method_options,
        changed_options={
            name: value for name, value in msgspec.structs.asdict(method_options).items() if value != defaults[name]
        },
        method_config=method_record.configure(context, method_options),
        split=split_record,
        places=places,
        out=out,
        seed=seed,
        iterations=length,
        processes=processes,
        device=device,
        workers=workers,
        threads=threads,
        amp=precision,
        compile=compile,
        evaluator=evaluator,
        backbone=backbone,
        backbone_digest=None if backbone is None else sha256_file(backbone),
        backbone_prefix=prefix,
        validation_images=images,
        validation_digest=sha256_file(places.val_annotations),
        damaged_images=damaged_images,
        overrides=dict(overrides or {}),
        loggers=choose_loggers(loggers),
    )


def check_scale(detector: Detector, split: Split, processes: int) -> None:
    """Refuse a number of images in a step for which no rule gives a learning rate.

    Raises:
        UserError: no rule, or more labelled images in a step than there are.
    """
    scaled_optimizer(detector.optimizer, processes / detector.reference_gpus)
    labeled, available = detector.per_gpu[0] * processes, split.counts["labeled_images"]
    if labeled > available:
        raise UserError(
            f"{processes} processes take {labeled} labelled images a step, and {split.folder} has {available}. "
            "Use fewer processes."
        )


def read_split(folder: Path, task: Task) -> Split:
    """Load and verify a split, and hold it against the task.

    Raises:
        UserError: no split, a damaged one, or one of another task or protocol version.
    """
    split = load_split(folder)
    if split.task != task.name:
        raise UserError(f"{folder}: a split of task {split.task!r}, not of {task.name!r}. Give the right --split.")
    if split.protocol != task.version:
        raise UserError(
            f"{folder}: made by protocol version {split.protocol} of task {task.name!r}, which is now at version "
            f"{task.version}. Make the split again with `cissod-bench make-splits --task {task.name}`."
        )
    if len(split.unlabeled_ids) == 0:
        raise UserError(f"{folder}: the split has no unlabelled image. Label a smaller fraction.")
    check_draw(split, task)
    return split


def check_draw(split: Split, task: Task) -> None:
    """Hold the options of a split against the task, whose file may have been edited since.

    Raises:
        UserError: an option of the draw, or the minority classes, differ.
    """
    wanted = asdict(task.draw)
    for name in () if split.options.get("imported") else wanted:
        if name in split.options and split.options[name] != wanted[name]:
            raise UserError(
                f"{split.folder}: drawn with {name} = {split.options[name]}, task {task.name!r} says {wanted[name]}. "
                "Make the split again, or raise the task's version."
            )
    for name in task.minority:
        if name not in split.groups.get("min", ()):
            raise UserError(f"{split.folder}: {unknown_name('minority class', name, split.groups.get('min', ()))}")


def find_data(task: Task, split: Split, data_root: Path, hidden: Path | None = None) -> DataPlaces:
    """Images and annotations of a task.

    Args:
        task, split: what is trained on.
        data_root: folder that the task's paths are relative to.
        hidden: full training annotations, if given; the embedded tasks have them beside their images.

    Raises:
        UserError: one of them does not exist.
    """
    if task.files is None:
        data = split.folder / "data"
        places = DataPlaces(data / "train", data / "val.json", data / "val", hidden or data / "train.json")
    else:
        places = DataPlaces(
            data_root / task.files.train_images,
            split.validation_file or data_root / task.files.val_annotations,
            data_root / (task.files.train_images if split.validation_file else task.files.val_images),
            hidden,
        )
    for what, path in (
        ("training images", places.train_images),
        ("validation annotations", places.val_annotations),
        ("validation images", places.val_images),
    ):
        if not path.exists():
            raise UserError(
                f"{path}: the {what} of task {task.name!r} are not there. Put them there, or give the folder that "
                "holds the data as --data-root; `cissod-bench doctor` lists what every task needs."
            )
    return places


def check_classes(split: Split, val_annotations: Path, known: Sequence[str]) -> None:
    """Hold the split's classes against those that the validation annotations know, by name.

    Raises:
        UserError: a class that the validation annotations lack.
    """
    for name in split.class_names:
        if name not in known:
            raise UserError(f"{val_annotations}: {unknown_name('class', name, known)} The split {split.folder} has it.")


def check_images(split: Split, places: DataPlaces, validation: list[dict[str, Any]]) -> None:
    """Look for every image on disk before training starts.

    Raises:
        UserError: images that do not exist: how many, and the first of them.
    """
    for annotations, folder, names in (
        (split.labeled_file, places.train_images, _image_names(split.labeled_file)),
        (split.unlabeled_file, places.train_images, _image_names(split.unlabeled_file)),
        (places.val_annotations, places.val_images, [image["file_name"] for image in validation]),
    ):
        missing = missing_images(folder, names)
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(names)} images of {annotations} do not exist, "
                f"the first is {missing[0]}."
            )


def labeled_boxes(split: Split) -> tuple[int, ...]:
    """Number of boxes of each class in D_l, in label order."""
    content = msgspec.json.decode(split.labeled_file.read_bytes(), type=_Boxes)
    counts = Counter(box.category_id for box in content.annotations)
    return tuple(counts[entry["id"]] for entry in split.classes)


def minority_labels(split: Split) -> tuple[int, ...]:
    """Labels of the classes outside group maj, or outside f where groups go by frequency."""
    majority = {*split.groups.get("maj", ()), *split.groups.get("f", ())}
    return tuple(label for label, name in enumerate(split.class_names) if name not in majority)


class _Box(msgspec.Struct):
    category_id: int


class _Boxes(msgspec.Struct):
    annotations: list[_Box]


class _NamedImage(msgspec.Struct):
    file_name: str


class _ImageList(msgspec.Struct):
    images: list[_NamedImage]


def _image_names(annotations: Path) -> list[str]:
    try:
        return [image.file_name for image in msgspec.json.decode(annotations.read_bytes(), type=_ImageList).images]
    except msgspec.DecodeError as error:
        raise UserError(f"{annotations}: not an annotation file in COCO format ({error}).") from None
