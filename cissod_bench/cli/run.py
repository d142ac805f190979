"""`cissod-bench run`: train and evaluate one method on one task."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cissod_bench.cli.options import DataRoot, Json, split_folder


def run(
    task: Annotated[str, typer.Option(help="A built-in task (`list tasks`), or a task file (.toml).")],
    method: Annotated[
        str | None,
        typer.Option(help="A method (`list methods`), or a method file (.py, `create method`).", show_default=False),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(help="A row of the paper's Tables 4 and 5 (`list ablations`), instead of a method."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Options of gbs for the task's data: `release`, the values of the authors' code."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="Split folder. Default: DATA_ROOT/splits/TASK/seed-0.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/TASK/METHOD-OPTIONS-SCHEDULE-seed-N.", show_default=False),
    ] = None,
    data_root: DataRoot = Path("data"),
    schedule: Annotated[str, typer.Option(help="Length of the run (`list schedules`).")] = "paper",
    iterations: Annotated[int | None, typer.Option(min=1, help="Exact length, instead of the schedule's.")] = None,
    detector: Annotated[
        str | None, typer.Option(help="Detector preset (`list detectors`). Default: the task's.", show_default=False)
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="File with backbone weights. Default: train from scratch.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the method as NAME=VALUE; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the training (the split has its own).")] = 0,
    evaluator: Annotated[str, typer.Option(help="hotcoco or pycocotools.")] = "hotcoco",
    hidden: Annotated[
        Path | None,
        typer.Option(
            help="All training annotations, to log precision and recall of pseudo labels; training never sees them.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, max=8, help="Loader processes. Default: 4 on a GPU, 0 on a CPU.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of PyTorch. Default: OMP_NUM_THREADS, or all cores.")
    ] = None,
    amp: Annotated[
        str | None,
        typer.Option(help="Mixed precision: bf16 or fp16. Default: single precision.", show_default=False),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile backbone and neck (torch.compile); pads images to 128.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Check everything and print the plan; do not train.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate one method on one task.

    Everything is checked first and the plan is printed; the run folder then gets the resolved configuration, the log,
    checkpoints, detections, per-class arrays and, last, `result.json`, which `report` reads.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine takes a GPU wherever it sees one
    with quiet_imports():
        from cissod_bench.engine.job import resolve_job
        from cissod_bench.engine.plan import plan, plan_lines
        from cissod_bench.engine.run import check_method, default_threads, pick_device, run_job
    from cissod_bench.files import canonical_json
    from cissod_bench.tasks import get_task

    task_record = get_task(task)
    name = task_record.name
    method, options, label = choose_method(
        method, ablation, parse_options(option or []), preset=preset, dataset=task_record.dataset
    )
    chosen = pick_device(device)
    job = resolve_job(
        task=task,
        method=method,
        split=split or split_folder(data_root, name, 0),
        out=out or Path("runs") / name / f"{label}-{schedule if iterations is None else iterations}-seed-{seed}",
        data_root=data_root,
        schedule=schedule,
        detector=detector,
        options=options,
        seed=seed,
        iterations=iterations,
        backbone=backbone,
        evaluator=evaluator,
        hidden=hidden,
        workers=workers if workers is not None else (4 if chosen == "cuda" else 0),
        threads=threads or default_threads(),
        device=chosen,
        amp=amp,
        compile=compile,
    )
    if plan_only:
        check_method(job)
    if as_json and plan_only:
        typer.echo(canonical_json(plan(job)))
    elif not as_json:
        typer.echo("\n".join(plan_lines(job)))
    if plan_only:
        return
    result = run_job(job)
    if as_json:
        typer.echo(canonical_json({"out": str(job.out), "metrics": result.metrics}))
        return
    for group, row in result.metrics.items():
        typer.echo(f"{group:>4}  " + "  ".join(f"{name} {_percent(value)}" for name, value in row.items()))
    typer.echo(f"Results are in {job.out}; compare runs with `cissod-bench report {job.out.parent}`.")


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Leave out what mmdet prints and warns of while it is imported: optional packages that nothing here needs."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def choose_method(
    method: str | None, ablation: str | None, options: dict[str, str], *, preset: str | None = None, dataset: str = ""
) -> tuple[str, dict[str, Any], str]:
    """Method, options and a label for the run folder, from --method or --ablation; given options come last.

    Raises:
        UserError: neither or both are given, or a preset for another method than gbs.
    """
    from cissod_bench.errors import UserError
    from cissod_bench.methods.ablations import get_ablation
    from cissod_bench.methods.presets import preset_options
    from cissod_bench.methods.registry import get_method

    if (method is None) == (ablation is None):
        raise UserError("run needs either --method (see `list methods`) or --ablation (see `list ablations`).")
    named: dict[str, Any] = {}
    if ablation is not None:
        chosen = get_ablation(ablation)
        method, label, named = chosen.method, ablation, dict(chosen.options)
    else:
        assert method is not None
        label = get_method(method).name
    if preset is not None:
        if method != "gbs":
            raise UserError(f"--preset {preset} is for gbs; {label} has no presets.")
        # An ablation says which parts there are, the preset with which values.
        label, named = f"{label}-{preset}", {**preset_options(preset, dataset), **named}
    return method, {**named, **options}, "-".join([label, *(f"{name}={value}" for name, value in options.items())])


def parse_options(given: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping.

    Raises:
        UserError: a text without "=".
    """
    from cissod_bench.errors import UserError

    options = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--option {text}: write NAME=VALUE.")
        options[name] = value
    return options


def _percent(value: float | None) -> str:
    return "  - " if value is None else f"{100 * value:4.1f}"
