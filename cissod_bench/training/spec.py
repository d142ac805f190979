"""What the user asks for: a typed, immutable, serialisable `RunSpec`; and from it, in milliseconds, what the run is.

Neither torch nor mmdet is loaded here, so that hundreds of run folders can be compared with their specs. A new
flag is a field here, a fact in `run_key` where it changes the result (`results/run_key.py`), and the place that obeys.
"""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file, sha256_text
from cissod_bench.methods.base import Method
from cissod_bench.methods.gbs.ablations import get_ablation
from cissod_bench.methods.gbs.presets import preset_options
from cissod_bench.methods.options import options_alone, resolved_options
from cissod_bench.methods.registry import get_method
from cissod_bench.results.run_key import RunKey
from cissod_bench.splits.folder import VALIDATION, read_manifest
from cissod_bench.tasks.registry import Task, get_task
from cissod_bench.training.recipes.detector import Detector
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.recipes.schedules import get_schedule

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
_NAMES_OR_FILES = ("task", "method", "detector")
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Batch = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,3}\+[1-9][0-9]{0,3}$")]
Workers = Annotated[int, msgspec.Meta(ge=0, le=8)]

LONGEST_NAME = 200
"""Characters of a folder's name; file systems allow 255 bytes."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One run as the user asks for it. Fields are checked when it is made; names are looked up when it is used.

    Attributes:
        task: a built-in task, or a task file (.toml).
        method: a method, or a method file (.py); `ablation`, a row of the paper's Tables 4 and 5, instead of one.
        preset: options of gbs for the task's data: "release".
        options: options of the method, as values or as texts.
        split: the split folder; DATA_ROOT/splits/TASK/seed-0 by default.
        out: the run folder; `default_out` by default.
        data_root: folder that the task's paths are relative to.
        schedule: length of the run; `iterations`, its exact length, instead of it.
        evaluations: how often to evaluate, evenly spaced; the schedule's number by default. The last one is the result.
        detector: a detector preset, or a file that describes one (.py); the task's by default.
        backbone: file with backbone weights; by default the detector's own, or none, for training from scratch.
        batch: labelled and unlabelled images in a batch of a process, as "1+4"; the detector's by default.
        accumulate: batches whose gradients are summed up to one step. `iterations` counts steps.
        seed: seed of the training.
        evaluator: "hotcoco" or "pycocotools".
        fixed_ap: LVIS's AP Fixed in addition, in `fixed_ap.json`, from detections without a cap in an image.
        hidden: all training annotations, for the quality of pseudo labels alone; no method but `full-labels` trains on
            them.
        device: "auto", "cuda" or "cpu".
        workers: loader processes for each training process; by default 4 on a GPU, 0 on a CPU.
        threads: CPU threads of PyTorch; by default OMP_NUM_THREADS, or all cores.
        precision: "fp32", "tf32" (on a GPU that has it, else fp32), "bf16" or "fp16"; see `ssod/precision.py`.
        compile: whether to compile backbone and neck.
        gpus: training processes on a machine, one GPU each; or processes on the CPU. `nodes`: machines.
        overrides: settings of the resolved configuration by dotted name.
        loggers: "tensorboard", "wandb", "mlflow"; None for TensorBoard where it is installed.
        damaged_images: largest number of unreadable training images that are replaced.

    Raises:
        UserError: a value of the wrong type or out of range.

    Examples:
        >>> import cissod_bench as cb
        >>> spec = cb.RunSpec(task="shapes", method="gbs", options={"beta": 0.7}, schedule="short")
        >>> spec.seed
        0
    """

    task: str
    method: str | None = None
    ablation: str | None = None
    preset: str | None = None
    options: dict[str, Any] = {}
    split: Path | None = None
    out: Path | None = None
    data_root: Path = Path("data")
    schedule: str = "paper"
    iterations: Count | None = None
    evaluations: Count | None = None
    detector: str | None = None
    backbone: Path | None = None
    batch: Batch | None = None
    accumulate: Count = 1
    seed: Seed = 0
    evaluator: str = "hotcoco"
    fixed_ap: bool = False
    hidden: Path | None = None
    device: str = "auto"
    workers: Workers | None = None
    threads: Count | None = None
    precision: str = "tf32"
    compile: bool = False
    gpus: Count = 1
    nodes: Count = 1
    overrides: dict[str, Any] = {}
    loggers: tuple[str, ...] | None = None
    damaged_images: NotNegative = 10

    def __post_init__(self) -> None:
        """Check every field, and make paths of texts."""
        for field in msgspec.structs.fields(type(self)):
            given = getattr(self, field.name)
            if isinstance(given, os.PathLike) and field.name in _NAMES_OR_FILES:
                given = os.fspath(given)
            try:
                value = msgspec.convert(given, field.type, dec_hook=_path)
            except msgspec.ValidationError as error:
                batch = "write the numbers of labelled images, at least 1, and unlabelled images as 1+4"
                reason = batch if field.name == "batch" else error
                raise UserError(f"{field.name}={getattr(self, field.name)!r}: {reason}.") from None
            msgspec.structs.force_setattr(self, field.name, value)

    @property
    def processes(self) -> int:
        """Training processes on all machines."""
        return self.gpus * self.nodes


def parse_options(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping.

    Raises:
        UserError: a text without "=".
    """
    options = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--option {text}: write NAME=VALUE.")
        options[name] = value
    return options


def encode_spec(spec: RunSpec) -> bytes:
    """A spec as JSON."""
    return msgspec.json.encode(spec, enc_hook=str)


def decode_spec(content: bytes) -> RunSpec:
    """The spec in JSON that `encode_spec` wrote."""
    return msgspec.json.decode(content, type=RunSpec, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__.lower()}`, got `{type(value).__name__}`")


@dataclass(frozen=True)
class ChosenMethod:
    """The method that a spec names.

    Attributes:
        method: the record.
        label: what the folder of the run is called after: method or ablation, and preset.
        named: options that the ablation and the preset stand for.
        given: the user's options, as values or as texts.
    """

    method: Method
    label: str
    named: dict[str, Any]
    given: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """All options that are given: the user's go before the others."""
        return {**self.named, **self.given}

    def changed(self) -> dict[str, Any]:
        """The options that differ from the method's defaults, parsed.

        Raises:
            UserError: an option that the method lacks, or a value of the wrong type.
        """
        return self._difference(self.options, {})

    def resolved(self) -> dict[str, Any]:
        """The value of every option, as a record has it.

        Raises:
            UserError: as above.
        """
        return resolved_options(self.method, self.options)

    def changed_by_user(self) -> dict[str, Any]:
        """The options that differ from what the label says, parsed.

        Raises:
            UserError: as above.
        """
        return self._difference(self.options, self.named)

    def _difference(self, given: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        alone = options_alone(self.method)
        new, old = (msgspec.structs.asdict(alone.options(options)) for options in (given, before))
        return {name: value for name, value in new.items() if value != old[name]}


def choose_method(spec: RunSpec) -> ChosenMethod:
    """The method that a spec names by `method` or `ablation`.

    Raises:
        UserError: neither or both are given, an unknown name, or a preset for another method than gbs.
    """
    if (spec.method is None) == (spec.ablation is None):
        raise UserError("run needs either --method (see `list methods`) or --ablation (see `list ablations`).")
    named: dict[str, Any] = {}
    if spec.ablation is not None:
        ablation = get_ablation(spec.ablation)
        method, label, named = get_method(ablation.method), ablation.name, dict(ablation.options)
    else:
        method = get_method(str(spec.method))
        label = method.name
    if spec.preset is not None:
        if method.name != "gbs":
            raise UserError(f"--preset {spec.preset} is for gbs; {label} has no presets.")
        # An ablation says which parts there are, the preset with which values.
        label, named = f"{label}-{spec.preset}", {**preset_options(spec.preset, get_task(spec.task).dataset), **named}
    return ChosenMethod(method, label, named, spec.options)


def run_key(spec: RunSpec) -> RunKey:
    """What the run is.

    Raises:
        UserError: an unknown name, no split, or no file with backbone weights.
    """
    task, schedule, chosen = get_task(spec.task), get_schedule(spec.schedule), choose_method(spec)
    detector = get_detector(spec.detector or task.detector)
    folder = split_folder(spec, task)
    manifest = read_manifest(folder)
    validation = validation_file(task, folder, spec.data_root, held_out=VALIDATION in manifest.outputs)
    labeled, unlabeled = per_process(spec, detector)
    batch = (labeled * spec.processes * spec.accumulate, unlabeled * spec.processes * spec.accumulate)
    iterations = spec.iterations or schedule.length(task, sum(batch) / reference_images(detector))
    own = detector.file
    if spec.backbone is None and own is not None and own.weights is not None:
        raise UserError(
            f"{own.path}: the backbone needs weights ({own.weights}). Give their file by --backbone, or, to train from "
            "scratch, take init_cfg out and freeze nothing; weights are never downloaded."
        )
    if spec.backbone is not None and not spec.backbone.is_file():
        raise UserError(
            f"--backbone {spec.backbone}: no such file. Give {detector.backbone_file}, or leave it out to train from "
            "scratch; weights are never downloaded."
        )
    backbone = first_weights(spec, detector)
    return RunKey(
        task=task.name,
        protocol=task.version,
        split_digest=manifest.digest,
        split_seed=manifest.seed,
        train_seed=spec.seed,
        method=chosen.method.name,
        method_options=chosen.changed(),
        method_digest=chosen.method.digest,
        method_version=chosen.method.version,
        resolved_options=chosen.resolved(),
        overrides=msgspec.json.decode(msgspec.json.encode(spec.overrides, enc_hook=repr)),  # lists, as a record has
        schedule=schedule.name,
        iterations=iterations,
        shortened=iterations * sum(batch) < full_length_images(task, detector),
        backbone=None if backbone is None else _digest(backbone),
        detector=detector.name,
        detector_digest=None if own is None else own.digest,
        batch=batch,
        accumulate=spec.accumulate,
        precision=spec.precision,  # type: ignore[arg-type]  # checked when the run is resolved
        padding=detector.padding,
        compile=spec.compile,
        evaluator=spec.evaluator,
        max_detections=task.max_detections,
        rules="lvis" if task.dataset == "lvis" else "coco",
        validation_digest=_digest(validation) if validation.is_file() else None,
    )


def full_length_images(task: Task, detector: Detector) -> int:
    """Images that the full schedule shows, with the number of GPUs that the preset is meant for."""
    return task.iterations * reference_images(detector)


def reference_images(detector: Detector) -> int:
    """Images in a step for which the detector's learning rate and the task's length are meant."""
    return sum(detector.per_gpu) * detector.reference_gpus


def first_weights(spec: RunSpec, detector: Detector) -> Path | None:
    """The file that the backbone starts from, None for training from scratch."""
    return spec.backbone or detector.weights


def per_process(spec: RunSpec, detector: Detector) -> tuple[int, int]:
    """Labelled and unlabelled images in a batch of one process."""
    if spec.batch is None:
        return detector.per_gpu
    labeled, _, unlabeled = spec.batch.partition("+")
    return int(labeled), int(unlabeled)


def split_folder(spec: RunSpec, task: Task) -> Path:
    """Where the split of a run lies."""
    return spec.split or default_split(spec.data_root, task.name)


def making_command(spec: RunSpec, split_seed: int = 0) -> str:
    """How the split of a run is made, for a shell."""
    root = "" if spec.data_root == Path("data") else f" --data-root {quote(str(spec.data_root))}"
    out = "" if spec.split is None else f" --out {quote(str(spec.split))}"
    seed = f" --seed {split_seed}" if split_seed else ""
    return f"cissod-bench make-splits --task {quote(spec.task)}{root}{seed}{out}"


def default_split(data_root: Path, task: str) -> Path:
    """Where a task's split lies unless the user says otherwise."""
    return data_root / "splits" / task / "seed-0"


def validation_file(task: Task, split: Path, data_root: Path, *, held_out: bool) -> Path:
    """Where the validation annotations of a run lie.

    Args:
        task: the task.
        split: the split folder.
        data_root: folder that the task's paths are relative to.
        held_out: whether the split holds a part of the training images out for validation.
    """
    if task.files is None:
        return split / "data" / "val.json"
    return split / "val.json" if held_out else data_root / task.files.val_annotations


def default_out(spec: RunSpec) -> Path:
    """The run folder unless `out` names one, relative to the folder of all runs: TASK/LABEL-SETTINGS-LENGTH-seed-N.

    The name comes from parsed options: those that change nothing are left out, the others are sorted, and characters
    that mean something to a file system or a shell are replaced.

    Raises:
        UserError: an unknown name.
    """
    task, chosen = get_task(spec.task), choose_method(spec)
    length = spec.schedule if spec.iterations is None else str(spec.iterations)
    try:
        options = chosen.changed_by_user()
    except UserError:
        options = spec.options  # the run itself will say what is wrong with them
    detector = [] if spec.detector in (None, task.detector) else [safe_text(get_detector(str(spec.detector)).name)]
    label = "-".join([chosen.label, *_named_values(options), *_named_values(spec.overrides), *detector])
    if len(label) > LONGEST_NAME:
        label = f"{label[:LONGEST_NAME]}-{sha256_text(label)[:8]}"
    return Path(task.name) / f"{label}-{length}-seed-{spec.seed}"


def _named_values(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={safe_text(values[name])}" for name in sorted(values)]


def safe_text(value: Any) -> str:
    """A value as a part of a file name."""
    if isinstance(value, bool) or value is None:
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    else:
        text = str(value)
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") or "_"


def _digest(file: Path) -> str:
    state = file.stat()
    return _digest_of(file.absolute(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _digest_of(file: Path, changed: int, size: int) -> str:
    """SHA-256 of a file, read once for each state of it."""
    return sha256_file(file)
