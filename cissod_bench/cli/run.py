"""`cissod-bench run`: train and evaluate one method on one task."""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cissod_bench.cli.options import DataRoot, Json, Slurm, SlurmOptions, cluster_options, split_folder
from cissod_bench.errors import UserError


def run(
    context: typer.Context,
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
    gpus: Annotated[
        int,
        typer.Option("--gpus", "--processes", min=1, help="Processes on this machine, one GPU each; or on the CPU."),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines, on each of which the same command is given with its --node-rank.")
    ] = 1,
    node_rank: Annotated[int, typer.Option(min=0, help="Number of this machine, from 0.")] = 0,
    rendezvous: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Free port of machine 0. Default: any, on one machine."),
    ] = None,
    slurm: Slurm = False,
    slurm_option: SlurmOptions = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the resolved configuration as NAME=VALUE; repeatable."),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard, wandb, mlflow or none; repeatable. Default: tensorboard where installed."),
    ] = None,
    damaged_images: Annotated[
        int, typer.Option(min=0, help="So many unreadable training images are replaced; with more the run stops.")
    ] = 10,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--export-config",
            help="Write the resolved configuration for mmdet's own Runner to this file; do not train.",
            show_default=False,
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Check everything and print the plan; do not train.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate one method on one task.

    Everything is checked first and the plan is printed; the run folder then gets the resolved configuration, the log,
    checkpoints, detections, per-class arrays and, last, `result.json`, which `report` reads. Several processes are
    started by --gpus, or by torchrun or srun around this command.
    """
    if device == "cpu" and not plan_only:  # a sweep plans in its own process, and starts other runs from it
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine takes a GPU wherever it sees one
    with quiet_imports():
        from cissod_bench.launch.torchrun import Nodes, launch
        from cissod_bench.results.record import RESULT_FILE, load_result
        from cissod_bench.training.build_config import export_config
        from cissod_bench.training.distributed import place_in_group
        from cissod_bench.training.job import resolve_job
        from cissod_bench.training.overrides import parse_overrides
        from cissod_bench.training.preflight import check_parts
        from cissod_bench.training.run_plan import plan, plan_lines
        from cissod_bench.training.runner import default_threads, pick_device, run_job
    from cissod_bench.io import canonical_json
    from cissod_bench.tasks.registry import get_task

    task_record = get_task(task)
    name = task_record.name
    method, options, label = choose_method(
        method, ablation, parse_options(option or []), preset=preset, dataset=task_record.dataset
    )
    rank, started = place_in_group(os.environ)  # by torchrun or srun
    if started > 1 and (gpus, nodes) != (1, 1):
        raise UserError(f"--gpus and --nodes: this is one of {started} processes already. Leave them out.")
    here, place = gpus, Nodes(nodes, node_rank, rendezvous)
    submitted = cluster_options(slurm, slurm_option)
    chosen = pick_device(device, here) if submitted is None else "cpu" if device == "cpu" else "cuda"
    overrides = parse_overrides(settings or [])
    label = "-".join([label, *(f"{setting}={value}" for setting, value in overrides.items())])
    resolve = functools.partial(
        resolve_job,
        task=task,
        method=method,
        split=split or split_folder(data_root, name, 0),
        out=out or run_folder(Path("runs"), name, label, schedule if iterations is None else iterations, seed),
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
        threads=threads or default_threads(here),
        device=chosen,
        amp=amp,
        compile=compile,
        processes=started if started > 1 else gpus * nodes,
        damaged_images=damaged_images,
        overrides=overrides,
        loggers=logger,
    )
    speaks = rank == 0 and node_rank == 0
    job = resolve(look_for_images=speaks)
    check_parts(job)
    if as_json and plan_only and speaks:
        typer.echo(canonical_json(plan(job)))
    elif not as_json and speaks:
        typer.echo("\n".join(plan_lines(job)))
    if exported is not None:
        export_config(job, exported)
    if plan_only or exported is not None:
        return
    if submitted is not None:
        from cissod_bench.cli.sweep import submit_this

        submit_this(context, job.out, submitted)
        return
    if started == 1 and job.processes > 1:
        launch(resolve.keywords, job.out, here, place)
        result = load_result(job.out / RESULT_FILE)
    else:
        result = run_job(job)
    if not speaks:
        return
    if as_json:
        typer.echo(canonical_json({"out": str(job.out), "metrics": result.metrics}))
        return
    for group, row in result.metrics.items():
        typer.echo(f"{group:>4}  " + "  ".join(f"{name} {_percent(value)}" for name, value in row.items()))
    typer.echo(f"Results are in {job.out}; compare runs with `cissod-bench report {job.out.parent}`.")


def run_folder(root: Path, task: str, label: str, length: str | int, seed: int) -> Path:
    """The folder of a run unless --out names one.

    Args:
        root: folder of all of them.
        task: its name.
        label: method or ablation with its options, see `choose_method`.
        length: schedule, or exact number of iterations.
        seed: of the training.
    """
    return root / task / f"{label}-{length}-seed-{seed}"


def default_folder(root: Path, given: Mapping[str, Any]) -> Path:
    """The same for options of `run` by name."""
    from cissod_bench.tasks.registry import get_task

    task = get_task(given["task"])
    options = parse_options(list(given["option"] or []))
    _, _, label = choose_method(
        given["method"], given["ablation"], options, preset=given["preset"], dataset=task.dataset
    )
    return run_folder(root, task.name, label, given["iterations"] or given["schedule"], given["seed"])


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
    from cissod_bench.methods.gbs.ablations import get_ablation
    from cissod_bench.methods.gbs.presets import preset_options
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

    options = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--option {text}: write NAME=VALUE.")
        options[name] = value
    return options


def _percent(value: float | None) -> str:
    return "  - " if value is None else f"{100 * value:4.1f}"
