"""Detections that another program made: scored, and recorded so that they can stand in the leaderboard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError
from cissod_bench.evaluation import Evaluation, evaluate, save_evaluation
from cissod_bench.evaluation.calibration import Reliability, reliability
from cissod_bench.evaluation.fixed import PER_CLASS, best_of_each_class
from cissod_bench.evaluation.doubts import doubts
from cissod_bench.evaluation.inputs import GroundTruth, read_detections, read_ground_truth
from cissod_bench.io import staged_folder, write_bytes
from cissod_bench.results.data_sizes import data_facts, data_sizes, validation_sizes
from cissod_bench.results.environment import describe_environment
from cissod_bench.results.record import make_result, write_result
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.results.run_key import NOT_STATED, Precision, RunKey
from cissod_bench.splits import folder as folders
from cissod_bench.splits.folder import Split
from cissod_bench.tasks.official import remark, unofficial
from cissod_bench.tasks.registry import TASKS, Task, get_task


@dataclass(frozen=True)
class Scored:
    """Scores of some detections, with the ground truth, the task and the split that they are of."""

    evaluation: Evaluation
    predictions: Path
    truth: GroundTruth
    task: Task
    split: Split | None
    fixed_ap: bool = False
    doubts: tuple[str, ...] = ()

    @property
    def per_class(self) -> int:
        """Detections of each class that AP Fixed counts over all images."""
        return PER_CLASS

    def reliability(self) -> dict[str, Reliability]:
        """How reliable the scores are, by class group.

        Raises:
            UserError: a score above 1.
        """
        found = read_detections(self.predictions, self.truth)
        if self.fixed_ap:
            found = best_of_each_class(found, PER_CLASS)
        cap, lvis = self.evaluation.max_detections, self.evaluation.lvis
        return reliability(self.truth, found, self.evaluation.groups, max_detections=cap, lvis=lvis)

    @property
    def sizes(self) -> dict[str, int]:
        """What is known of the size of the data: of the ground truth, and of what the split is of."""
        return validation_sizes(self.truth) if self.split is None else data_sizes(self.split, self.truth)

    @property
    def unofficial(self) -> list[str]:
        """How the data differs from the task's official files."""
        return unofficial(self.task.name, self.sizes)

    @property
    def remark(self) -> str | None:
        """The same as a sentence; None where the data is theirs."""
        return remark(self.task.name, self.sizes)


@dataclass(frozen=True)
class Training:
    """What is stated about a training that another program did. With an equal protocol the run's key is equal.

    Attributes:
        method, detector, schedule: names.
        iterations: length of the training.
        options: of the method, where they are not its defaults.
        seed: None where it is not stated, like all that follows.
        batch: labelled and unlabelled images in a step.
        backbone: SHA-256 of the file with the backbone's first weights, None for training from scratch.
        precision, padding, method_version, resolved_options, detector_digest: see `RunKey`.
        overrides: settings in which the training differs from the detector's preset; none where nothing is stated.
        compile: whether the backbone was compiled.
        full_batch: images in a step of the full schedule with this detector.
    """

    method: str
    detector: str
    iterations: int
    schedule: str = "external"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    batch: tuple[int, int] | None = None
    backbone: str | None = NOT_STATED
    precision: Precision | None = None
    padding: int | None = None
    method_version: int | None = None
    resolved_options: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    compile: bool = False
    detector_digest: str | None = None
    full_batch: int | None = None

    def shortened_on(self, task: Task) -> bool | None:
        """Whether the training shows fewer images than the full schedule of a task; None where that is not stated."""
        if self.batch is None or self.full_batch is None:
            return None
        return self.iterations * sum(self.batch) < task.iterations * self.full_batch


def score(
    predictions: Path,
    task: str | None,
    split: Path | None,
    *,
    annotations: Path | None,
    data_root: Path,
    evaluator: str,
    max_detections: int | None,
    fixed_ap: bool = False,
) -> Scored:
    """Score detections on a task; arguments as of `api.evaluate`.

    Raises:
        UserError: neither task nor split, no ground truth, or a detection that cannot be used; AP Fixed for another
            data set than LVIS, or with a cap on detections in an image.
    """
    chosen, found = _task_and_split(task, split)
    if found is None and chosen.frequency_groups:
        raise UserError(f"Task {chosen.name!r} groups its classes by their images in D_l: give --split.")
    lvis = chosen.dataset == "lvis"
    if fixed_ap and not lvis:
        raise UserError(f"AP Fixed is a rule of LVIS; task {chosen.name!r} has COCO's rules. Leave out --fixed-ap.")
    if fixed_ap and max_detections is not None:
        raise UserError("AP Fixed has no cap on detections in an image: leave out --max-detections or --fixed-ap.")
    if max_detections is not None and max_detections < 1:
        raise UserError(f"--max-detections {max_detections}: at least one detection of an image has to count.")
    truth = read_ground_truth(annotations or _annotations(chosen, found, data_root), lvis=lvis)
    detections = read_detections(predictions, truth)
    evaluation = evaluate(
        truth,
        detections,
        found.groups if found else _task_groups(chosen, truth),
        classes=found.class_names if found else None,
        evaluator=evaluator,
        max_detections=chosen.max_detections if max_detections is None else max_detections,
        lvis=lvis,
        per_class=PER_CLASS if fixed_ap else None,
    )
    return Scored(evaluation, predictions, truth, chosen, found, fixed_ap, tuple(doubts(detections, truth)))


def record_scores(scored: Scored, out: Path, training: Training) -> None:
    """Record scores for the leaderboard, as a run folder.

    Args:
        scored: the scores, with a split.
        out: the run folder, which is made.
        training: what is stated about the training.
    """
    task, split, evaluation = scored.task, scored.split, scored.evaluation
    assert split is not None
    key = RunKey(
        task=task.name,
        protocol=task.version,
        split_digest=split.digest,
        split_seed=split.seed,
        train_seed=training.seed,
        method=training.method,
        method_options=dict(training.options),
        schedule=training.schedule,
        iterations=training.iterations,
        shortened=training.shortened_on(task),
        detector=training.detector,
        detector_digest=training.detector_digest,
        batch=training.batch,
        backbone=training.backbone,
        precision=training.precision,
        padding=training.padding,
        compile=training.compile,
        overrides=dict(training.overrides),
        method_version=training.method_version,
        resolved_options=None if training.resolved_options is None else dict(training.resolved_options),
        evaluator=evaluation.evaluator,
        max_detections=evaluation.max_detections,
        rules="lvis" if evaluation.lvis else "coco",
    )
    write_run(out, key, evaluation, scored.predictions, **data_facts(split, scored.truth))


def write_run(
    out: Path,
    key: RunKey,
    evaluation: Evaluation,
    predictions: Path,
    **fields: Any,
) -> None:
    """Write a run folder, all of it or nothing: the detections, the per-class arrays and the record.

    Args:
        out: the run folder, which is made.
        key: what was evaluated.
        evaluation: its scores.
        predictions: the detections, which are copied into the folder.
        fields: further attributes of `Result`.
    """
    with staged_folder(out) as staging:
        folder = RunFolder(staging)
        write_bytes(folder.detections, predictions.read_bytes())
        save_evaluation(folder.per_class, evaluation)
        result = make_result(
            key,
            evaluation,
            files={"detections": folder.detections.name, "per_class": folder.per_class.name},
            environment=describe_environment(),
            **fields,
        )
        write_result(folder.record, result)


def _task_and_split(task: str | None, split: Path | None) -> tuple[Task, Split | None]:
    # The manifest's own digest is checked; the images' lists and annotations of D_l do not matter here.
    found = folders.load_split(split, verify=False) if split else None
    if task is None and found is None:
        raise UserError("Give --task, or --split with a split folder: they say which classes form which group.")
    if task is None and found is not None and found.task not in TASKS:
        raise UserError(f"{split}: a split of the custom task {found.task!r}; give its task file as --task.")
    chosen = get_task(task or (found.task if found else ""))
    if found is not None and (found.task, found.protocol) != (chosen.name, chosen.version):
        raise UserError(
            f"{split}: a split of task {found.task!r}, protocol {found.protocol}, not of {chosen.name!r}, protocol "
            f"{chosen.version}."
        )
    return chosen, found


def _annotations(task: Task, split: Split | None, data_root: Path) -> Path:
    if split is not None and split.validation_file is not None:
        return split.validation_file
    if task.files is not None:
        path = data_root / task.files.val_annotations
    elif split is not None:
        path = split.folder / "data" / "val.json"
    else:
        raise UserError(f"Task {task.name!r} keeps its validation annotations in its split folder: give --split.")
    if not path.is_file():
        raise UserError(f"{path}: the validation annotations are not there. Give them as --annotations.")
    return path


def _task_groups(task: Task, truth: GroundTruth) -> Mapping[str, Sequence[str]]:
    names = truth.class_names
    return {"maj": [name for name in names if name not in task.minority], "min": task.minority}
