"""Result records: one `result.json` per run, with its key and its scores. Records of earlier schemas keep loading."""

import functools
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.evaluation import METRICS, Evaluation, load_evaluation
from cissod_bench.io import decode_json, read_regular, write_json
from cissod_bench.results.environment import Git
from cissod_bench.results.run_key import NOT_STATED, RunKey, known_facts
from cissod_bench.version import __version__

SCHEMA_VERSION = 4
"""1: without `key.validation_digest`. 2: without `key.method_version`, `key.resolved_options` and `data`.
3: without `split_options`."""
RESULT_FILE = "result.json"

LARGEST = 2**24
"""Bytes of a record that is read."""
_ROUNDING = 1e-6
"""Difference between a record and its per-class arrays that another order of sums explains."""
_OF_EVERY_CLASS = ("AP", "AP50", "AP75", "AR")
"""Metrics that every class with ground truth has; those of one size of objects are defined for some."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_DEEPEST = 8
"""Levels of lists and objects in a record."""

class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of a class group, and how many of its classes have no ground truth and are left out of its means."""

    classes: int
    without_ground_truth: int


_Amount = Annotated[float, msgspec.Meta(ge=0)]


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the detector and its training cost.

    Attributes:
        parameters: numbers in the detector's weights, frozen ones included.
        flops: floating-point operations of convolutions and matrix products for one image, a multiply-add counts as
            two; the RoI head with as many boxes as it may get. None where a part of the detector needs values.
        image: height and width of that image, the detector's test size.
        latency_ms: median milliseconds for one resized test image on `device`, copies and post-processing included.
        device: name of the GPU, or "cpu" with the number of threads.
        gpu_hours: hours of training and evaluation times GPUs, None without a GPU.
    """

    parameters: Annotated[int, msgspec.Meta(ge=0)]
    flops: Annotated[int, msgspec.Meta(ge=0)] | None
    image: tuple[int, int]
    latency_ms: _Amount
    device: str
    gpu_hours: _Amount | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run's record.

    Attributes:
        key: what the result is a result of.
        metrics: group -> metric -> value in [0, 1], unrounded; None where the group has no ground truth of that size.
        groups: the same groups -> their sizes.
        files: role -> file name relative to the record, such as "per_class", "detections", "config", "curves".
        environment: versions of the interpreter and of the packages that matter.
        package_version: version of this package; None where it is not recorded.
        split: path of the split folder as the user gave it.
        annotations: path of the ground truth as it was given; `annotations_digest` identifies its content. Scores
            against another ground truth do not stand in one table.
        data: numbers of images and annotations, see `data_sizes.py`; None where they are not recorded.
        label_fraction: the fraction that the split labels, `Split.label_fraction`; None where it is not recorded.
        split_options: what decided the split, `Split.options`; None where it is not recorded.
        timing: seconds by phase, such as "train", "evaluate".
        damaged_images: file of each training image that could not be read -> number of draws that got another one.
        gpu_memory_mib: peak memory of the GPU, None without one.
        costs: of the detector and of the run; None where they were not measured.
        git: state of the source tree, where it was one.
        schema_version: version of this schema.
    """

    key: RunKey
    metrics: dict[str, dict[str, float | None]]
    groups: dict[str, Group]
    files: dict[str, str] = {}
    environment: dict[str, str] = {}
    package_version: str | None = None
    split: str | None = None
    annotations: str | None = None
    annotations_digest: str | None = None
    data: dict[str, int] | None = None
    label_fraction: float | None = None
    split_options: dict[str, Any] | None = None
    timing: dict[str, float] = {}
    damaged_images: dict[str, int] = {}
    gpu_memory_mib: float | None = None
    costs: Costs | None = None
    git: Git | None = None
    schema_version: int = SCHEMA_VERSION


class Rejected(msgspec.Struct, frozen=True):
    """A file that was found but cannot be used as a record."""

    path: Path
    reason: str


def make_result(key: RunKey, evaluation: Evaluation, **fields: Any) -> Result:
    """Record of an evaluation.

    Args:
        key: what was evaluated; its evaluator, rules and max_detections must be those of `evaluation`.
        evaluation: the scores.
        fields: further attributes of `Result`.
    """
    used = (evaluation.evaluator, evaluation.max_detections, "lvis" if evaluation.lvis else "coco")
    if used != (key.evaluator, key.max_detections, key.rules):
        raise ValueError(f"the key says {key.evaluator, key.max_detections, key.rules}, the evaluation used {used}")
    empty = {name for name, count in zip(evaluation.class_names, evaluation.num_ground_truth, strict=True) if not count}
    groups = {group: Group(len(names), len(empty.intersection(names))) for group, names in evaluation.groups.items()}
    return Result(
        key=key,
        metrics=evaluation.metrics(),
        groups=groups,
        annotations=evaluation.annotations,
        annotations_digest=evaluation.annotations_digest,
        package_version=__version__,
        **fields,
    )


def write_result(path: Path, result: Result) -> None:
    """Write a record atomically as sorted, indented JSON.

    Raises:
        UserError: the record would not load again (a metric that is missing, NaN, outside [0, 1], ...).
    """
    content = msgspec.to_builtins(result)
    _checked(path, content)
    write_json(path, content)


def load_result(path: Path) -> Result:
    """Read and validate one record.

    Raises:
        UserError: no such file, not JSON, another program's file, a schema version that is not known, or a value that
            breaks the schema. The message names the file and the field.
    """
    try:
        text = read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return _checked(path, decode_json(text, Any, name=path, remedy="The file is damaged."))


def find_results(folders: Iterable[Path]) -> tuple[list[Path], list[Rejected]]:
    """All `result.json` below the given folders (or the files themselves), each once, in the order of their paths.

    Links to folders are followed, as runs often lie on another disk; a folder is searched under one name.

    Returns:
        the files, and the folders that may not be searched.

    Raises:
        UserError: a folder that does not exist.
    """
    found: set[Path] = set()
    closed: list[Rejected] = []
    searched: set[str] = set()

    def refused(error: OSError) -> None:
        closed.append(Rejected(Path(error.filename), f"{error.filename}: cannot be searched ({error.strerror})."))

    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder}: no such folder. Give the folder of a run, or one that holds runs.")
        if not folder.is_dir():
            found.add(folder)
            continue
        for place, below, files in os.walk(folder, onerror=refused, followlinks=True):
            itself = os.path.realpath(place)
            if itself in searched:
                below.clear()
                continue
            searched.add(itself)
            if RESULT_FILE in (*below, *files):
                found.add(Path(place, RESULT_FILE))
    return sorted(found), closed


def load_results(folders: Sequence[Path]) -> tuple[list[tuple[Path, Result]], list[Rejected]]:
    """All records below the given folders. One that is damaged or foreign is left out and named, never guessed at.

    Returns:
        the records with their paths, and the files that were left out with the reason.

    Raises:
        UserError: a folder that does not exist, or no usable record in any of them.
    """
    results: list[tuple[Path, Result]] = []
    paths, rejected = find_results(folders)
    for path in paths:
        try:
            result = load_result(path)
            check_arrays(path.parent, result)
            results.append((path, result))
        except UserError as error:
            rejected.append(Rejected(path, str(error)))
    if not results:
        where = ", ".join(str(folder) for folder in folders)
        reasons = "".join(f" {entry.reason}" for entry in rejected)
        raise UserError(f"No usable {RESULT_FILE} below {where}.{reasons} Make a run first.")
    return results, rejected


@dataclass(frozen=True)
class ClassScores:
    """What the per-class arrays of a run say: classes in label order, AP of those with ground truth, groups and metrics."""

    names: tuple[str, ...]
    ap: dict[str, float]
    groups: dict[str, tuple[str, ...]]
    metrics: dict[str, dict[str, float | None]]
    annotations_digest: str


def class_scores(folder: Path, result: Result) -> ClassScores | None:
    """The scores in the per-class arrays of a run, None if it has none. A file is read once as long as it is the same.

    Raises:
        UserError: the file that the record names is not there, or is damaged.
    """
    name = result.files.get("per_class")
    if name is None:
        return None
    try:
        status = (folder / name).stat()
    except FileNotFoundError:
        raise UserError(f"{folder}: {name}, the scores by class that its record names, is missing.") from None
    except OSError as error:
        raise UserError(f"{folder / name}: cannot be read ({error.strerror}).") from None
    return _class_scores(folder / name, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=100_000)
def _class_scores(path: Path, mtime_ns: int, size: int) -> ClassScores:
    evaluation = load_evaluation(path)
    pairs = zip(evaluation.class_names, evaluation.per_class()["AP"].tolist(), strict=True)
    ap = {name: value for name, value in pairs if not math.isnan(value)}
    names, groups = evaluation.class_names, evaluation.groups
    return ClassScores(names, ap, groups, evaluation.metrics(), evaluation.annotations_digest)


def check_arrays(folder: Path, result: Result) -> None:
    """Hold the metrics of a record against its per-class arrays, where there are any.

    Raises:
        UserError: the arrays are damaged, or give other metrics.
    """
    scores = class_scores(folder, result)
    if scores is None:
        return
    where = f"{folder / RESULT_FILE}: {result.files['per_class']}"
    if result.annotations_digest not in (None, scores.annotations_digest):
        raise UserError(f"{where} is of another ground truth than the record.")
    for group, metrics in result.metrics.items():
        for metric, value in metrics.items():
            computed = scores.metrics.get(group, {}).get(metric)
            if (value is None) != (computed is None) or abs((value or 0.0) - (computed or 0.0)) > _ROUNDING:
                raise UserError(f"{where} gives {computed} as {metric} of group {group!r}, and the record {value}.")


def _checked(path: Path, content: Any) -> Result:
    if not isinstance(content, dict) or "schema_version" not in content or "key" not in content:
        raise UserError(f"{path}: not a result of this program (no `schema_version` and `key`).")
    if content["schema_version"] not in range(1, SCHEMA_VERSION + 1):
        raise UserError(
            f"{path}: schema version {content['schema_version']}, but this program reads versions 1 to "
            f"{SCHEMA_VERSION}; use the version of the program that wrote it."
        )
    key = content["key"]
    try:
        _check_plain(content)
        if isinstance(key, dict):
            key = {"backbone": NOT_STATED, **known_facts(key)}  # nothing said is not "from scratch"
        result = msgspec.convert({**content, "key": key}, Result)
    except (msgspec.ValidationError, ValueError) as error:
        raise UserError(f"{path}: not a valid result ({error}).") from None
    problem = _problem(result)
    if problem:
        raise UserError(f"{path}: not a valid result ({problem}).")
    return result


def _is_mean_of_groups(result: Result, metric: str) -> bool:
    """Whether a metric of all classes is the mean over the classes of the other groups, if these are all classes."""
    sizes = {group: size.classes - size.without_ground_truth for group, size in result.groups.items() if group != "all"}
    values = {group: result.metrics[group][metric] for group, size in sizes.items() if size}
    whole, count = result.metrics["all"][metric], sum(sizes.values())
    every = result.groups["all"].classes - result.groups["all"].without_ground_truth
    if whole is None or count != every or not count:
        return True
    mean = sum(sizes[group] * (value or 0.0) for group, value in values.items()) / count
    return abs(whole - mean) <= _ROUNDING


def _check_plain(value: Any, depth: int = 0) -> None:
    """Refuse what no run writes and no reader expects: numbers beyond 64 bits, NUL or half characters, great depth.

    Raises:
        ValueError: with what there is.
    """
    if isinstance(value, str) and _NO_TEXT.search(value):
        raise ValueError(f"{value[:40]!r} has a character that no text has")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number is beyond 64 bits")
    if isinstance(value, dict | list):
        if depth == _DEEPEST:
            raise ValueError("lists and objects are nested too deep")
        for inner in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            _check_plain(inner, depth + 1)


def _problem(result: Result) -> str | None:
    """What the types cannot say."""
    if "all" not in result.metrics:
        return "`metrics` has no group 'all'"
    if result.metrics.keys() != result.groups.keys():
        return f"`metrics` has the groups {sorted(result.metrics)}, `groups` has {sorted(result.groups)}"
    for group, values in result.metrics.items():
        if set(values) != set(METRICS):
            return f"metrics of group {group!r} are {sorted(values)}, expected {sorted(METRICS)}"
        for metric, value in values.items():
            if value is not None and not 0 <= value <= 1:  # also refuses NaN
                return f"{metric} of group {group!r} is {value}, expected a number in [0, 1]"
    key = result.key
    counts = {
        "protocol": key.protocol, "iterations": key.iterations, "max_detections": key.max_detections,
        "accumulate": key.accumulate, "padding": key.padding, "method_version": key.method_version,
    }  # fmt: skip
    for name, count in counts.items():
        if count is not None and count < 1:
            return f"`key.{name}` is {count}, expected at least 1"
    if key.batch is not None and (key.batch[0] < 1 or key.batch[1] < 0):
        return f"`key.batch` is {list(key.batch)}, expected the numbers of labelled and unlabelled images"
    if key.train_seed is not None and not 0 <= key.train_seed < 2**32:
        return f"`key.train_seed` is {key.train_seed}, expected 0 to 4294967295"
    if not result.key.split_digest:
        return "`key.split_digest` is empty"
    for size in result.groups.values():
        if not 0 <= size.without_ground_truth <= size.classes:
            return f"a group has {size.classes} classes, {size.without_ground_truth} of them without ground truth"
    unlike = [metric for metric in _OF_EVERY_CLASS if not _is_mean_of_groups(result, metric)]
    if unlike:
        return f"{unlike[0]} of group 'all' is not the mean over the classes of the other groups"
    escaping = [name for name in result.files.values() if Path(name).is_absolute() or ".." in Path(name).parts]
    if escaping:
        return f"file {escaping[0]!r} is not inside the run's folder"
    return None
