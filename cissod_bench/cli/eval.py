"""`cissod-bench eval`: score detections of any framework, without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cissod_bench.cli.options import DataRoot, Json
from cissod_bench.errors import UserError

if TYPE_CHECKING:
    from cissod_bench.evaluation import Evaluation
    from cissod_bench.splits.folder import Split
    from cissod_bench.tasks.registry import Task


def evaluate_predictions(
    predictions: Annotated[
        Path, typer.Option(help="Detections in COCO's results format: [{image_id, category_id, bbox, score}, ...].")
    ],
    task: Annotated[
        str | None, typer.Option(help="A built-in task (`list tasks`) or a task file. Default: the split's task.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="Split folder: gives the class groups. Default: the task's groups.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Ground truth, COCO form. Default: the task's validation annotations.")
    ] = None,
    data_root: DataRoot = Path("data"),
    evaluator: Annotated[str, typer.Option(help="hotcoco, pycocotools (COCO tasks) or lvis (LVIS tasks).")] = "hotcoco",
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Detections that count per image. Default: the task's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to make for `report`. Needs --split, --method, --iterations and --detector."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="With --out: name of the method.")] = None,
    detector: Annotated[str | None, typer.Option(help="With --out: name of the detector, such as r50-fpn.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="With --out: iterations of the training.")] = None,
    schedule: Annotated[str, typer.Option(help="With --out: name of the training schedule.")] = "external",
    seed: Annotated[
        int | None, typer.Option(help="With --out: seed of the training. Unknown seeds stay apart.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score any detector's results on a task: AP of all classes and of each class group.

    Detections with an unknown image or class, a value that is not finite or a negative score or size are refused, with
    the entry named; nothing is skipped.

    Example: cissod-bench eval --predictions results.json --task coco-split1 --annotations instances_val2017.json
    """
    from cissod_bench.evaluation import evaluate

    if out is not None and (split is None or method is None or iterations is None or detector is None):
        raise UserError(
            "--out makes a record for the leaderboard: give --split, --method, --iterations and --detector."
        )
    if out is not None and out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: the folder is not empty. Give another --out, or remove it first.")
    chosen, drawn = _task_and_split(task, split)
    truth = annotations or _annotations(chosen, drawn, data_root)
    evaluation = evaluate(
        truth,
        predictions,
        drawn.groups if drawn else _task_groups(chosen, truth),
        evaluator=evaluator,
        max_detections=max_detections or chosen.max_detections,
        lvis=chosen.dataset == "lvis",
    )
    if out is not None and drawn is not None and method and iterations and detector:
        from cissod_bench.results.record import Key

        key = Key(
            task=chosen.name,
            protocol=chosen.version,
            split_digest=drawn.digest,
            split_seed=drawn.seed,
            train_seed=seed,
            method=method,
            method_options={},
            schedule=schedule,
            iterations=iterations,
            shortened=iterations < chosen.iterations,
            detector=detector,
            evaluator=evaluator,
            max_detections=evaluation.max_detections,
            rules="lvis" if evaluation.lvis else "coco",
        )
        from cissod_bench.results.external import write_run

        write_run(out, key, evaluation, predictions, split=str(drawn.folder))
    _show(evaluation, chosen.name, as_json)
    if out is not None and not as_json:
        typer.echo(f"Written: {out}")


def _task_and_split(task: str | None, split: Path | None) -> tuple["Task", "Split | None"]:
    from cissod_bench.splits.folder import load_split
    from cissod_bench.tasks.registry import TASKS, get_task

    # The manifest's own digest is checked; the images' lists and annotations of D_l do not matter here.
    drawn = load_split(split, verify=False) if split else None
    if task is None and drawn is None:
        raise UserError("Give --task, or --split with a split folder: they say which classes form which group.")
    if task is None and drawn is not None and drawn.task not in TASKS:
        raise UserError(f"{split}: a split of the custom task {drawn.task!r}; give its task file as --task.")
    chosen = get_task(task or (drawn.task if drawn else ""))
    if drawn is not None and (drawn.task, drawn.protocol) != (chosen.name, chosen.version):
        raise UserError(
            f"{split}: a split of task {drawn.task!r}, protocol {drawn.protocol}, not of {chosen.name!r}, protocol "
            f"{chosen.version}."
        )
    return chosen, drawn


def _annotations(task: "Task", split: "Split | None", data_root: Path) -> Path:
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


def _task_groups(task: "Task", annotations: Path) -> Mapping[str, Sequence[str]]:
    from cissod_bench.evaluation.inputs import read_ground_truth

    if task.frequency_groups:
        raise UserError(f"Task {task.name!r} groups its classes by their images in D_l: give --split.")
    names = read_ground_truth(annotations).class_names
    return {"maj": [name for name in names if name not in task.minority], "min": task.minority}


def _show(evaluation: "Evaluation", task: str, as_json: bool) -> None:
    from cissod_bench.evaluation import METRICS

    metrics = evaluation.metrics()
    if as_json:
        import json

        sizes = {group: len(names) for group, names in evaluation.groups.items()}
        content = {"task": task, "metrics": metrics, "classes": sizes, "evaluator": evaluation.evaluator}
        without = {"without_ground_truth": evaluation.without_ground_truth}
        typer.echo(json.dumps(content | without | {"max_detections": evaluation.max_detections}, indent=2))
        return
    from cissod_bench.cli.report import print_table
    from cissod_bench.leaderboard.table import Cell, Column, Table

    columns = (
        Column("group", "Group"),
        Column("classes", "Classes"),
        *(Column(m, m, kind="reference") for m in METRICS),
    )
    rows = []
    for group, row in metrics.items():
        cells = [Cell(None if value is None else 100 * value) for value in row.values()]
        rows.append((Cell(group), Cell(str(len(evaluation.groups[group]))), *cells))
    rules = "LVIS" if evaluation.lvis else "COCO"
    notes = (
        (f"{evaluation.without_ground_truth} classes have no ground truth and are left out of the means.",)
        if evaluation.without_ground_truth
        else ()
    )
    caption = f"In percent; {rules} rules, {evaluation.max_detections} detections per image, {evaluation.evaluator}."
    print_table(Table("eval", task, caption, columns, tuple(rows), ranked=0, notes=notes))
