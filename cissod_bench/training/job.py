"""A run before it runs: everything it needs looked up, read and checked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation.pseudo_labels import read_hidden_labels
from cissod_bench.methods.base import Context, Method, MethodConfig
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.results.run_key import RunKey
from cissod_bench.splits.folder import ID_FILES, Split
from cissod_bench.ssod.hooks.compiled import check_compiler
from cissod_bench.ssod.precision import Precision, check_precision
from cissod_bench.tasks.registry import Task, get_task
from cissod_bench.training.backbone import backbone_prefix
from cissod_bench.training.data_config import resize_scales
from cissod_bench.training.data_paths import DataPaths, check_classes, check_images, find_data, read_split
from cissod_bench.training.full_labels import find_labels, write_full_labels
from cissod_bench.training.loggers import choose_loggers
from cissod_bench.training.process.device import default_threads, pick_device
from cissod_bench.training.process.distributed import place_in_group
from cissod_bench.training.recipes.detector import Detector
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.recipes.scaling import scaled_optimizer
from cissod_bench.training.recipes.schedules import Schedule, get_schedule
from cissod_bench.training.spec import (
    RunSpec,
    choose_method,
    default_out,
    per_process,
    reference_images,
    run_key,
)
from cissod_bench.training.validation import read_validation


@dataclass(frozen=True)
class Job:
    """One run: task x method x schedule x seed, with everything looked up.

    Attributes:
        spec: what the user asks for.
        key: what the run is.
        task, method, schedule, detector: the records.
        options: the method's options.
        method_config: what the method puts into the framework.
        split: the split, verified.
        places: images and validation annotations.
        out: the run folder.
        device: "cuda" or "cpu".
        workers: loader processes for each training process.
        threads: threads of PyTorch's CPU operators.
        precision: see `ssod/precision.py`.
        backbone_prefix: what the names of the backbone's weights begin with, None for nothing.
        validation_images: images to evaluate on, see `validation.py`.
        loggers: where scalars go besides the run folder, see `loggers.py`.
    """

    spec: RunSpec
    key: RunKey
    task: Task
    method: Method
    schedule: Schedule
    detector: Detector
    options: msgspec.Struct
    method_config: MethodConfig
    split: Split
    places: DataPaths
    out: Path
    device: str
    workers: int
    threads: int
    precision: Precision
    backbone_prefix: str | None
    validation_images: list[dict[str, Any]]
    loggers: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.out)

    @property
    def labeled_file(self) -> Path:
        """The images that are trained on with their labels: D_l, or all of them."""
        return self.folder.full_labels if self.method_config.all_labels else self.split.labeled_file

    @property
    def ignored_regions(self) -> bool:
        """Whether crowd regions of the labels are neither objects nor background."""
        return has_ignored_regions(self.split) and not self.method_config.all_labels

    def write_full_labels(self, file: Path) -> None:
        """Write all training labels as COCO JSON.

        Raises:
            UserError: the training annotations are not there, or not those of the split.
        """
        labels = find_labels(self.task, self.places.hidden_annotations, self.spec.data_root)
        write_full_labels(file, self.task, self.split, labels, self.places.train_images)

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.spec.seed

    @property
    def iterations(self) -> int:
        """Length of the run in batches, of which `accumulate` make a step."""
        return self.key.batches

    @property
    def processes(self) -> int:
        """Training processes over all machines, on one GPU each where the device is "cuda"."""
        return self.spec.processes

    @property
    def burn_in(self) -> int:
        """First iterations on labelled images alone."""
        return self.detector.burn_in_batches(self.iterations)

    @property
    def per_gpu(self) -> tuple[int, int]:
        """Labelled and unlabelled images in a batch of one process."""
        labeled, unlabeled = per_process(self.spec, self.detector)
        return labeled, unlabeled if self.method_config.unlabeled else 0

    @property
    def batch(self) -> tuple[int, int]:
        """Labelled and unlabelled images in one step over all processes."""
        labeled, unlabeled = self.per_gpu
        times = self.processes * self.spec.accumulate
        return labeled * times, unlabeled * times

    @property
    def scale(self) -> float:
        """Images in a step over those that the preset is meant for, see `scaling.py`."""
        assert self.key.batch is not None
        return sum(self.key.batch) / reference_images(self.detector)

    @property
    def optimizer(self) -> dict[str, Any]:
        """The preset's optimizer configuration, scaled."""
        return scaled_optimizer(self.detector.optimizer, self.scale)

    @property
    def learning_rate(self) -> float:
        """The scaled learning rate."""
        return float(self.optimizer["lr"])


def resolve_job(spec: RunSpec, *, look_for_images: bool = True, device: str | None = None) -> Job:
    """Look up and check everything a run needs, before anything is written.

    Args:
        spec: what the user asks for.
        look_for_images: whether to look for every image on disk: once a run is enough, however many processes it has.
        device: "cuda" or "cpu" where the run is for another machine than this one, None for this one.

    Raises:
        UserError: something does not exist or does not fit; the message says what to do.
    """
    task, schedule, chosen = get_task(spec.task), get_schedule(spec.schedule), choose_method(spec)
    detector = get_detector(spec.detector or task.detector)
    here = 1 if place_in_group(os.environ)[1] > 1 else spec.gpus
    device = device or pick_device(spec.device, here)
    if spec.evaluator not in ("hotcoco", "pycocotools"):
        raise unknown_name("evaluator", spec.evaluator, ("hotcoco", "pycocotools"))
    if spec.fixed_ap and task.dataset != "lvis":
        raise UserError(f"AP Fixed is a rule of LVIS; task {task.name!r} has COCO's rules. Leave out --fixed-ap.")
    precision = check_precision(spec.precision, device)
    if spec.compile:
        check_compiler(device)
    out = spec.out or Path("runs") / default_out(spec)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Give the folder for the run.")
    split = read_split(spec, task)
    if spec.hidden is not None and not spec.hidden.is_file():
        raise UserError(f"--hidden {spec.hidden}: no such file. Give the full training annotations, or leave it out.")
    places = find_data(task, split, spec.data_root, spec.hidden)
    images, classes = read_validation(task, places.val_annotations, places.val_images)
    check_classes(split, places.val_annotations, classes)
    if places.hidden_annotations is not None:
        read_hidden_labels(places.hidden_annotations, split.class_names)
    key = run_key(spec)
    prefix = None
    if spec.backbone is not None:
        prefix = backbone_prefix(spec.backbone, detector.backbone_file)  # `preflight.py` checks what is in it
    check_scale(spec, detector, split)
    context = Context(
        num_classes=len(split.classes),
        iterations=key.batches,
        burn_in=detector.burn_in_batches(key.batches),
        unsup_weight=detector.semi["unsup_weight"],
        theta=detector.theta,
        rfs_threshold=task.rfs_threshold,
        crs_gamma=task.crs_gamma,
        labeled_images=split.counts["labeled_images"],
        labeled_boxes=labeled_boxes(split),
        minority=minority_labels(split),
        minority_images=split.folder / ID_FILES["minority"],
    )
    options = chosen.method.options(chosen.options)
    config = chosen.method.configure(context, options)
    if spec.fixed_ap and any(hook.get("pcb") for hook in config.hooks):
        raise UserError("--fixed-ap: scores cannot be calibrated (pcb) once the run is over. Leave out one of them.")
    if config.all_labels:
        find_labels(task, places.hidden_annotations, spec.data_root)
    if look_for_images:
        trained = config.unlabeled or config.all_labels
        check_images(split, places, images, resize_scales(detector), unlabeled=trained)
    return Job(
        spec=spec,
        key=key,
        task=task,
        method=chosen.method,
        schedule=schedule,
        detector=detector,
        options=options,
        method_config=config,
        split=split,
        places=places,
        out=out,
        device=device,
        workers=spec.workers if spec.workers is not None else (4 if device == "cuda" else 0),
        threads=spec.threads or default_threads(device, here),
        precision=precision,
        backbone_prefix=prefix,
        validation_images=images,
        loggers=choose_loggers(spec.loggers),
    )


def check_scale(spec: RunSpec, detector: Detector, split: Split) -> None:
    """Refuse a number of images in a step for which no rule gives a learning rate.

    Raises:
        UserError: no rule, or more labelled images in a step than there are.
    """
    batch, processes = per_process(spec, detector), spec.processes
    scaled_optimizer(detector.optimizer, sum(batch) * processes * spec.accumulate / reference_images(detector))
    labeled, available = batch[0] * processes, split.counts["labeled_images"]
    if labeled > available:
        raise UserError(
            f"A batch takes {labeled} labelled images, but {split.folder} has {available}. "
            "Label more: raise fraction, count or floor of the task, and make the split again"
            + ("; or use fewer processes." if processes > 1 else ".")
        )


def has_ignored_regions(split: Split) -> bool:
    """Whether the minority objects in D_m are ignored regions."""
    return split.options.get("minority_objects") == "ignore"


def labeled_boxes(split: Split) -> tuple[int, ...]:
    """Number of boxes of each class in D_l, in label order; crowd regions count as in mmdet, ignored ones do not."""
    columns = read_columns(split.labeled_file)
    labels = columns.box_label[~columns.crowd] if has_ignored_regions(split) else columns.box_label
    return tuple(np.bincount(labels, minlength=len(split.classes)).tolist())


def minority_labels(split: Split) -> tuple[int, ...]:
    """Labels of the classes outside group maj, or outside f where groups go by frequency."""
    majority = {*split.groups.get("maj", ()), *split.groups.get("f", ())}
    return tuple(label for label, name in enumerate(split.class_names) if name not in majority)
