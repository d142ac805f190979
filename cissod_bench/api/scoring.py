"""Detections of any program: scored, and recorded so that they can stand in the leaderboard. Needs no torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.api.paths import AnyPath, new_picture, optional
from cissod_bench.errors import UserError

if TYPE_CHECKING:
    from cissod_bench.evaluation import Evaluation
    from cissod_bench.results.external import Scored, Training


def evaluate(
    predictions: AnyPath,
    *,
    task: AnyPath | None = None,
    split: AnyPath | None = None,
    annotations: AnyPath | None = None,
    data_root: AnyPath = "data",
    evaluator: str = "hotcoco",
    max_detections: int | None = None,
    fixed_ap: bool = False,
) -> "Evaluation":
    """Score any detector's results on a task: AP over all classes and per class group.

    Args:
        predictions: detections in COCO's results format.
        task: a built-in task or a task file. Default: the split's task.
        split: split folder, which defines the class groups. Default: the task's groups.
        annotations: ground truth in COCO format. Default: the task's validation annotations.
        data_root: folder that the task's paths are relative to.
        evaluator: "hotcoco", "pycocotools" (COCO tasks) or "lvis" (LVIS tasks).
        max_detections: detections that count per image. Default: the task's.
        fixed_ap: LVIS's AP Fixed: 10,000 detections of each class count over all images, and all of them in an image.

    Raises:
        UserError: a detection with an unknown image or class or a value that is not finite, or no ground truth.

    Examples:
        >>> import cissod_bench as cb
        >>> scores = cb.evaluate("runs/soft-teacher/detections.json", split="splits/shapes")
        >>> sorted(scores.metrics())
        ['all', 'maj', 'min']
    """
    return score(
        predictions,
        task=task,
        split=split,
        annotations=annotations,
        data_root=data_root,
        evaluator=evaluator,
        max_detections=max_detections,
        fixed_ap=fixed_ap,
    ).evaluation


def score(
    predictions: AnyPath,
    *,
    task: AnyPath | None = None,
    split: AnyPath | None = None,
    annotations: AnyPath | None = None,
    data_root: AnyPath = "data",
    evaluator: str = "hotcoco",
    max_detections: int | None = None,
    out: AnyPath | None = None,
    training: "Training | None" = None,
    fixed_ap: bool = False,
) -> "Scored":
    """Score as `evaluate` does, and record the scores for `report`.

    Args:
        predictions: as of `evaluate`, and so are all that are not named here.
        out: run folder to create; needs `split` and `training`. None to write nothing.
        training: what is known of the training, see `state_training`.

    Returns:
        The scores as `evaluation`, the `task`, and `remark`: whether the ground truth is the task's official file.

    Raises:
        UserError: as of `evaluate`; or `out` is not empty, or what it needs is missing.

    Examples:
        >>> import cissod_bench as cb
        >>> training = cb.state_training("mine", "r50-fpn", 90_000, batch="8+32", options=["beta=0.7"])
        >>> found = cb.score("runs/soft-teacher/detections.json", split="splits/shapes", out="runs/mine",
        ...                  training=training)
        >>> found.task.name
        'shapes'
    """
    from cissod_bench.results import external

    if out is not None:
        if split is None or training is None:
            raise UserError("--out writes a record for the leaderboard. Give --split and state the training.")
        if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
            raise UserError(f"{out}: the folder is not empty, or a file. Give another --out, or remove it first.")
    scored = external.score(
        Path(predictions),
        None if task is None else os.fspath(task),
        optional(split),
        annotations=optional(annotations),
        data_root=Path(data_root),
        evaluator=evaluator,
        max_detections=max_detections,
        fixed_ap=fixed_ap,
    )
    if out is not None and training is not None:
        external.record_scores(scored, Path(out), training)
    return scored


def plot_calibration(scored: "Scored", file: AnyPath) -> None:
    """Plot how reliable scores are, by class group.

    Args:
        scored: what `score` returned.
        file: .png, .svg or .pdf.

    Raises:
        UserError: the file exists, or has another ending.

    Examples:
        >>> import cissod_bench as cb
        >>> scored = cb.score("runs/soft-teacher/detections.json", split="splits/shapes")
        >>> cb.plot_calibration(scored, "calibration.svg")
    """
    from cissod_bench.leaderboard.figures.of_errors import calibration
    from cissod_bench.splits.plot import write_figure

    target = new_picture(file)
    write_figure(calibration(scored.reliability()), target)


def state_training(
    method: str,
    detector: AnyPath,
    iterations: int,
    *,
    schedule: str = "external",
    options: Mapping[str, Any] | Sequence[str] = (),
    method_version: int | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    batch: str | None = None,
    backbone: AnyPath | None = None,
    precision: str | None = None,
    padding: int | None = None,
    compile: bool = False,
) -> "Training":
    """What is known of a training that another program did. What is not stated keeps it apart from other runs.

    Args:
        method: name of the method.
        detector: name of the detector, or a file that describes one, as of `run --detector`.
        iterations: length of the training.
        schedule: name of the schedule.
        options: of the method, by name, or as NAME=VALUE; numbers, booleans and null as in JSON.
        method_version: version of the method (`list methods NAME`). With it, options that are not given have the
            defaults of that version; of a method of another program `options` are all there are.
        overrides: settings in which the training differs from the detector's preset, as NAME=VALUE, like `run --set`.
        seed: of the training.
        batch: labelled and unlabelled images in a step, as "8+32".
        backbone: file with the backbone's first weights, its SHA-256, or "none" for training from scratch.
        precision: "fp32", "tf32", "bf16" or "fp16".
        padding: sides of padded images are multiples of this number of pixels.
        compile: whether the backbone was compiled.

    Raises:
        UserError: a text or number that no training has, or no such file; an option that a method of this package
            lacks, or another version than its own.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.state_training("mine", "r50-fpn", 90_000, batch="8+32").batch
        (8, 32)
    """
    import msgspec

    from cissod_bench.errors import unknown_name
    from cissod_bench.results.external import Training
    from cissod_bench.results.run_key import NOT_STATED, PRECISIONS
    from cissod_bench.training.overrides import parse_overrides
    from cissod_bench.training.recipes.detectors import DETECTORS, get_detector
    from cissod_bench.training.spec import Count, Seed, parse_options

    numbers = {"iterations": (iterations, Count), "seed": (seed, Seed | None), "padding": (padding, Count | None)}
    for name, (number, kind) in numbers.items():
        try:
            msgspec.convert(number, kind)
        except msgspec.ValidationError as error:
            raise UserError(f"{name}={number!r}: {error}.") from None
    if not method:
        raise UserError("The method has no name. Give --method.")
    detector = os.fspath(detector)
    given = options if isinstance(options, Mapping) else parse_options(options)
    changed, resolved = _options(method, method_version, given)
    known = get_detector(detector) if detector in DETECTORS or detector.endswith(".py") else None
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    return Training(
        method=method,
        detector=detector if known is None else known.name,
        detector_digest=None if known is None or known.file is None else known.file.digest,
        iterations=iterations,
        schedule=schedule,
        options=changed,
        method_version=method_version,
        resolved_options=None if method_version is None else resolved,
        overrides=parse_overrides(overrides),
        seed=seed,
        batch=None if batch is None else _batch(batch),
        backbone=NOT_STATED if backbone is None else _backbone(backbone),
        precision=precision,  # type: ignore[arg-type]  # checked above
        padding=padding,
        compile=compile,
        full_batch=None if known is None else sum(known.per_gpu) * known.reference_gpus,
    )


def _options(method: str, version: int | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a method that differ from its defaults, and all of them."""
    from cissod_bench.methods.registry import METHODS
    from cissod_bench.training.spec import ChosenMethod

    known = METHODS.get(method)
    if known is None:
        stated = {name: _value(name, value) for name, value in given.items()}
        return stated, stated
    if version not in (None, known.version):
        raise UserError(
            f"--method-version {version}: {method} is at version {known.version} here, and what its options were in "
            "another is not known. Leave it out, or use the release that has that version."
        )
    chosen = ChosenMethod(known, method, {}, dict(given))
    return chosen.changed(), chosen.resolved()


def _value(name: str, given: Any) -> Any:
    import json

    try:
        value = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise UserError(f"--option {name}={given}: numbers have to be finite.") from None
    return value


def _batch(text: str) -> tuple[int, int]:
    parts = text.split("+")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) < 1:
        raise UserError(f"--batch {text}: write labelled and unlabelled images in a step as 8+32.")
    return int(parts[0]), int(parts[1])


def _backbone(given: AnyPath) -> str | None:
    import re

    from cissod_bench.io import sha256_file

    text = os.fspath(given)
    if text == "none" or re.fullmatch("[0-9a-f]{64}", text):
        return None if text == "none" else text
    if not Path(text).is_file():
        raise UserError(f"--backbone {text}: no such file. Give the file, its SHA-256, or none.")
    return sha256_file(Path(text))
