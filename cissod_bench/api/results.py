"""Results: score, load, tabulate and compare."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.api.paths import AnyPath, optional, paths

if TYPE_CHECKING:
    from cissod_bench.evaluation import Evaluation
    from cissod_bench.leaderboard.comparison import Comparison
    from cissod_bench.leaderboard.report import Report
    from cissod_bench.results.collection import Results
    from cissod_bench.results.external import Training

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def evaluate(
    predictions: AnyPath,
    *,
    task: str | None = None,
    split: AnyPath | None = None,
    annotations: AnyPath | None = None,
    data_root: AnyPath = "data",
    evaluator: str = "hotcoco",
    max_detections: int | None = None,
    fixed_ap: bool = False,
) -> "Evaluation":
    """Score any detector's results on a task: AP over all classes and per class group. Needs no torch.

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

    Example:
        >>> import cissod_bench as cb
        >>> scores = cb.evaluate("runs/soft-teacher/detections.json", split="splits/shapes")
        >>> sorted(scores.metrics())
        ['all', 'maj', 'min']
    """
    from cissod_bench.results.external import score

    return score(
        Path(predictions),
        task,
        optional(split),
        annotations=optional(annotations),
        data_root=Path(data_root),
        evaluator=evaluator,
        max_detections=max_detections,
        fixed_ap=fixed_ap,
    ).evaluation


def state_training(
    method: str,
    detector: str,
    iterations: int,
    *,
    schedule: str = "external",
    options: Sequence[str] = (),
    seed: int | None = None,
    batch: str | None = None,
    backbone: str | None = None,
    precision: str | None = None,
    padding: int | None = None,
) -> "Training":
    """What is stated about a training that another program did, from the texts of a command line.

    Args:
        method, detector, schedule: names; `iterations` the length.
        options: of the method, as NAME=VALUE; numbers, booleans and null as in JSON.
        seed: of the training.
        batch: labelled and unlabelled images in a step, as "8+32".
        backbone: file with the backbone's first weights, its SHA-256, or "none" for training from scratch.
        precision: "fp32", "tf32", "bf16" or "fp16".
        padding: sides of padded images are multiples of so many pixels.

    Raises:
        UserError: a text that cannot be read, or no such file.
    """
    from cissod_bench.errors import unknown_name
    from cissod_bench.results.external import Training
    from cissod_bench.results.run_key import NOT_STATED, PRECISIONS
    from cissod_bench.training.recipes.detectors import DETECTORS
    from cissod_bench.training.spec import parse_options

    preset = DETECTORS.get(detector)
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    return Training(
        method=method,
        detector=detector,
        iterations=iterations,
        schedule=schedule,
        options={name: _value(text) for name, text in parse_options(options).items()},
        seed=seed,
        batch=None if batch is None else _batch(batch),
        backbone=NOT_STATED if backbone is None else _backbone(backbone),
        precision=precision,  # type: ignore[arg-type]  # checked above
        padding=padding,
        full_batch=None if preset is None else sum(preset.per_gpu) * preset.reference_gpus,
    )


def _value(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _batch(text: str) -> tuple[int, int]:
    from cissod_bench.errors import UserError

    parts = text.split("+")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--batch {text}: write labelled and unlabelled images in a step as 8+32.")
    return int(parts[0]), int(parts[1])


def _backbone(text: str) -> str | None:
    import re

    from cissod_bench.errors import UserError
    from cissod_bench.io import sha256_file

    if text == "none" or re.fullmatch("[0-9a-f]{64}", text):
        return None if text == "none" else text
    if not Path(text).is_file():
        raise UserError(f"--backbone {text}: no such file. Give the file, its SHA-256, or none.")
    return sha256_file(Path(text))


def load_results(folders: AnyPath | Sequence[AnyPath]) -> "Results":
    """Load all records below some folders; damaged and foreign ones are skipped and listed in `rejected`.

    Args:
        folders: run folders, or folders that contain them at any depth.

    Raises:
        UserError: a folder that does not exist, or no usable record in any of them.

    Example:
        >>> import cissod_bench as cb
        >>> frame = cb.load_results("runs").to_frame()
        >>> list(frame["group"])
        ['all', 'maj', 'min']
    """
    from cissod_bench.results.collection import collect_results

    return collect_results(paths(folders))


def report(
    folders: AnyPath | Sequence[AnyPath],
    out: AnyPath | None = None,
    *,
    metric: str = "AP",
    bootstrap: int = 0,
    baseline: str = "soft-teacher",
    overwrite: bool = False,
    progress: Progress = iter,
) -> "Report":
    """Make the leaderboard of finished runs, with the paper's numbers beside those in its setting.

    Args:
        folders: run folders, or folders that contain them at any depth.
        out: folder for the report's files (Markdown, LaTeX, CSV, JSON, HTML, plots); None to write nothing.
        metric: AP, AP50, AP75, APs, APm, APl or AR.
        bootstrap: bootstrap samples over images, for intervals and significance marks; 0 for none.
        baseline: method that the marks of difference refer to.
        overwrite: replace the files of an earlier report.
        progress: wraps the loop over samples.

    Raises:
        UserError: no usable record, or a file that exists with other content.

    Example:
        >>> import cissod_bench as cb
        >>> made = cb.report("runs", "report")
        >>> [run_set.task for run_set in made.run_sets]
        ['shapes']
    """
    from cissod_bench.leaderboard.report import make_report, write_report

    made = make_report(
        paths(folders),
        metric=metric,
        samples=bootstrap,
        baseline=baseline,
        variants=paper_variants(),
        progress=progress,
    )
    if out is not None:
        write_report(made, Path(out), overwrite=overwrite)
    return made


def paper_variants() -> dict[tuple[int, str], tuple[str, dict[str, Any]]]:
    """(table, row) of the paper's ablations -> method and the options in which it differs from the method's defaults.

    The last row of Table 4 is gbs with its defaults, so options that equal that row's do not count as changed.
    """
    from cissod_bench.methods.gbs.ablations import ABLATIONS

    defaults = ABLATIONS["crs-gbt-gbr"].options
    return {
        (ablation.table, ablation.title): (
            ablation.method,
            {name: value for name, value in ablation.options.items() if defaults.get(name) != value},
        )
        for ablation in ABLATIONS.values()
    }


def compare(
    first: AnyPath,
    second: AnyPath,
    *,
    annotations: AnyPath | None = None,
    samples: int = 1000,
    seed: int = 0,
    progress: Progress = iter,
) -> "Comparison":
    """Compare two runs per group and class, with 95 % intervals from a paired bootstrap over images.

    Args:
        first, second: run folders.
        annotations: ground truth. Default: the file named in the first record.
        samples: bootstrap samples.
        seed: seed of the bootstrap.
        progress: wraps the loop over samples.

    Raises:
        UserError: the runs are not comparable, or the ground truth is not there.

    Example:
        >>> import cissod_bench as cb
        >>> found = cb.compare("runs/soft-teacher", "runs/soft-teacher", samples=10)
        >>> found.groups["all"][2].value  # B - A
        0.0
    """
    from cissod_bench.leaderboard.comparison import compare_runs

    one, other = Path(first), Path(second)
    return compare_runs(one, other, annotations=optional(annotations), samples=samples, seed=seed, progress=progress)
