"""`cissod-bench eval`: score detections of any framework, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cissod_bench.cli.console import print_json, print_table
from cissod_bench.cli.layout.panels import given_in
from cissod_bench.cli.options import DataRoot, Json
from cissod_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cissod_bench.evaluation.calibration import Reliability
    from cissod_bench.results.external import Scored


SCORED, SHOWN, RECORD = "What is scored", "What is shown", "With --out, a record of the training"


def evaluate_predictions(
    context: typer.Context,
    predictions: Annotated[
        Path,
        typer.Option(
            help="Detections in COCO's results format: [{image_id, category_id, bbox, score}, ...].",
            rich_help_panel=SCORED,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="A built-in task (`list tasks`) or a task file. Default: the split's task.", rich_help_panel=SCORED
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help="Split folder, which defines the class groups. Default: the task's groups.", rich_help_panel=SCORED
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Ground truth in COCO format. Default: the task's validation annotations.", rich_help_panel=SCORED
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    evaluator: Annotated[
        str, typer.Option(help="hotcoco, pycocotools (COCO tasks) or lvis (LVIS tasks).", rich_help_panel=SCORED)
    ] = "hotcoco",
    max_detections: Annotated[
        int | None,
        typer.Option(min=1, help="Detections per image to score. Default: the task's.", rich_help_panel=SCORED),
    ] = None,
    fixed_ap: Annotated[
        bool,
        typer.Option(
            "--fixed-ap",
            help="LVIS's AP Fixed: 10,000 detections of each class count over all images, and all of them in an image.",
            rich_help_panel=SCORED,
        ),
    ] = False,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="How reliable the scores are, by class group.", rich_help_panel=SHOWN)
    ] = False,
    calibration_plot: Annotated[
        Path | None,
        typer.Option(help="Plot it into this file (.png, .svg or .pdf).", show_default=False, rich_help_panel=SHOWN),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to create for `report`. Requires --split, --method, --iterations and --detector.",
            rich_help_panel=RECORD,
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Name of the method.", rich_help_panel=RECORD)] = None,
    detector: Annotated[
        str | None, typer.Option(help="Detector, such as r50-fpn, or its file.", rich_help_panel=RECORD)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Iterations of the training.", rich_help_panel=RECORD)
    ] = None,
    schedule: Annotated[str, typer.Option(help="Name of the training schedule.", rich_help_panel=RECORD)] = "external",
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Training seed. Runs with unknown seeds are never averaged.", rich_help_panel=RECORD),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable.", rich_help_panel=RECORD
        ),
    ] = None,
    method_version: Annotated[
        int | None,
        typer.Option(min=1, help="Version of a method of this package (`list methods NAME`).", rich_help_panel=RECORD),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting changed from the preset's, as of `run --set`.",
            rich_help_panel=RECORD,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED+UNLABELLED", help="Images in a step over all GPUs, such as 8+32.", rich_help_panel=RECORD
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SHA256|none",
            help="The backbone's first weights, a file or its SHA-256; none for training from scratch.",
            rich_help_panel=RECORD,
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, bf16 or fp16.", rich_help_panel=RECORD)] = None,
    padding: Annotated[
        int | None,
        typer.Option(min=1, help="Sides of padded images are multiples of this number.", rich_help_panel=RECORD),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="The backbone was compiled.", rich_help_panel=RECORD)
    ] = False,
    as_json: Json = False,
) -> None:
    """Score any detector's results on a task, by class group.

    Detections with an unknown image or class, a value that is not finite, or a negative score or size are errors that
    name the entry. Nothing is skipped. With --out, state what is known of the training: runs of an equal protocol stand
    in one table, and what is not stated keeps them apart.

    Example: cissod-bench eval --predictions results.json --task coco-split1 --annotations instances_val2017.json
    """
    from cissod_bench import api
    from cissod_bench.api.paths import new_picture

    training = None
    if calibration_plot is not None:
        new_picture(calibration_plot)  # before minutes of scoring
    if out is None and (stated := given_in(RECORD, context)):
        raise UserError(f"{', '.join(stated)}: part of the record that --out writes. Give --out, or leave it out.")
    if out is not None and fixed_ap:
        raise UserError("A record for the leaderboard has the task's own rules: leave out --out or --fixed-ap.")
    if out is not None:
        if split is None or method is None or iterations is None or detector is None:
            raise UserError(
                "--out writes a record for the leaderboard. Give --split, --method, --iterations and --detector too."
            )
        training = api.state_training(
            method,
            detector,
            iterations,
            schedule=schedule,
            options=option or (),
            method_version=method_version,
            overrides=settings or (),
            seed=seed,
            batch=batch,
            backbone=backbone,
            precision=precision,
            padding=padding,
            compile=compile,
        )
    scored = api.score(
        predictions,
        task=task,
        split=split,
        annotations=annotations,
        data_root=data_root,
        evaluator=evaluator,
        max_detections=max_detections,
        out=out,
        training=training,
        fixed_ap=fixed_ap,
    )
    reliable = scored.reliability() if calibration or calibration_plot is not None else {}
    if calibration_plot is not None:
        api.plot_calibration(scored, calibration_plot)
    _show(scored, reliable, as_json)
    if out is not None and not as_json:
        typer.echo(f"Written: {out}")


def _show(scored: "Scored", reliable: "Mapping[str, Reliability]", as_json: bool) -> None:
    evaluation, task = scored.evaluation, scored.task.name
    metrics = evaluation.metrics()
    if as_json:
        sizes = {group: len(names) for group, names in evaluation.groups.items()}
        content = {"task": task, "metrics": metrics, "classes": sizes, "evaluator": evaluation.evaluator}
        without = {"without_ground_truth": evaluation.without_ground_truth}
        cap = {"max_detections": None if scored.fixed_ap else evaluation.max_detections}
        fixed = {"max_detections_per_class": scored.per_class} if scored.fixed_ap else {}
        found = {"calibration": {group: _plain(each) for group, each in reliable.items()}} if reliable else {}
        print_json(content | without | cap | fixed | {"unofficial": scored.unofficial, "doubts": scored.doubts} | found)
        return
    from cissod_bench.leaderboard.table import Cell, Column, Table

    columns = (
        Column("group", "Group"),
        Column("classes", "Classes", kind="count"),
        *(Column(name, name, kind="reference") for name in metrics["all"]),
    )
    rows = []
    for group, row in metrics.items():
        cells = [Cell(value) for value in row.values()]
        rows.append((Cell(group), Cell(len(evaluation.groups[group])), *cells))
    rules = "LVIS" if evaluation.lvis else "COCO"
    notes = []
    if evaluation.without_ground_truth:
        notes.append(f"{evaluation.without_ground_truth} classes have no ground truth and are left out of the means.")
    if scored.remark:
        notes.append(scored.remark)
    notes += scored.doubts
    if evaluation.outside_task:
        notes.append(f"Left out, since the split has no such class: {', '.join(evaluation.outside_task)}.")
    limit = f"{evaluation.max_detections} detections per image"
    if scored.fixed_ap:
        limit = f"AP Fixed: {scored.per_class:,} detections per class over all images"
        if evaluation.max_detections <= scored.task.max_detections:
            notes.append(
                f"No image has more than {evaluation.max_detections} detections here; AP Fixed is meant for lists that "
                "are not cut for each image."
            )
    caption = f"In percent; {rules} rules, {limit}, {evaluation.evaluator}."
    print_table(Table("eval", task, caption, columns, tuple(rows), ranked=0, notes=tuple(notes)))
    if reliable:
        _show_reliability(reliable)


def _show_reliability(reliable: "Mapping[str, Reliability]") -> None:
    """Print for each group its calibration error, and mean score and precision of the detections in every bin."""
    from cissod_bench.leaderboard.table import Cell, Column, Table

    columns = [Column("score", "Score")]
    for group in reliable:
        columns += [
            Column(f"{group}_count", "boxes", group, "count"),
            Column(f"{group}_mean", "score", group, "reference"),
        ]
        columns += [Column(f"{group}_precision", "right", group, "reference")]
    rows = []
    bins = len(next(iter(reliable.values())).count)
    for place in range(bins):
        cells = [Cell(f"{place / bins:.1f}–{(place + 1) / bins:.1f}")]
        for each in reliable.values():
            known = bool(each.count[place])
            cells.append(Cell(int(each.count[place])))
            cells += [Cell(float(values[place]) if known else None) for values in (each.score, each.precision)]
        rows.append(tuple(cells))
    errors = ", ".join(
        f"{group} {'-' if each.error is None else format(100 * each.error, '.1f')}" for group, each in reliable.items()
    )
    caption = "Mean score of the detections and the part of them that is right (IoU 0.5), in percent, by score."
    notes = (f"Expected calibration error in percent: {errors}.",)
    print_table(
        Table("calibration", "Calibration of scores", caption, tuple(columns), tuple(rows), ranked=0, notes=notes)
    )


def _plain(found: "Reliability") -> dict[str, object]:
    """A group's calibration as JSON has it; bins without detections have null."""
    known = found.count > 0
    return {
        "expected_calibration_error": found.error,
        "count": found.count.tolist(),
        "score": [value if there else None for value, there in zip(found.score.tolist(), known, strict=True)],
        "precision": [value if there else None for value, there in zip(found.precision.tolist(), known, strict=True)],
    }
