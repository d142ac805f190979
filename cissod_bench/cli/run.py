"""`cissod-bench run`: train and evaluate one method on one task."""

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from cissod_bench.cli.console import print_states, say
from cissod_bench.cli.options import DataRoot, Json, Slurm, SlurmOptions, cluster_options

WHAT, DATA, LENGTH, MACHINE, OUTPUT = "What is trained", "Data", "Length and detector", "Machine", "Output"


def run(
    task: Annotated[
        str, typer.Option(rich_help_panel=WHAT, help="A built-in task (`list tasks`), or a task file (.toml).")
    ],
    method: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="A method (`list methods`), or a method file (.py, `create method`).",
            show_default=False,
        ),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="A row of the paper's Tables 4 and 5 (`list ablations`), instead of a method.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="Options of gbs for the task's data: `release`, the values of the authors' code.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            rich_help_panel=WHAT,
            help="Option of the method as NAME=VALUE (`list methods METHOD`); repeatable.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            rich_help_panel=WHAT,
            help="Setting of the resolved configuration as NAME=VALUE; repeatable.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, rich_help_panel=WHAT, help="Seed of the training (the split has its own)."),
    ] = 0,
    split: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=DATA, help="Split folder. Default: DATA_ROOT/splits/TASK/seed-0.", show_default=False
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    hidden: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=DATA,
            help="All training annotations, to log precision and recall of pseudo labels. Only full-labels trains on "
            "them.",
            show_default=False,
        ),
    ] = None,
    damaged_images: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel=DATA,
            help="Largest number of unreadable training images that are replaced before the run stops.",
        ),
    ] = 10,
    evaluator: Annotated[str, typer.Option(rich_help_panel=DATA, help="hotcoco or pycocotools.")] = "hotcoco",
    fixed_ap: Annotated[
        bool,
        typer.Option(
            "--fixed-ap", rich_help_panel=DATA, help="LVIS: detect once more without a cap in an image, for AP Fixed."
        ),
    ] = False,
    schedule: Annotated[
        str, typer.Option(rich_help_panel=LENGTH, help="Length of the run (`list schedules`).")
    ] = "paper",
    iterations: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=LENGTH, help="Exact length, instead of the schedule's.")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=LENGTH,
            help="Evaluations, evenly spaced; the last one is the result. Default: the schedule's.",
            show_default=False,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=LENGTH,
            help="A detector preset (`list detectors`), or a detector file (.py). Default: the task's.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=LENGTH,
            help="File with backbone weights. Default: train from scratch.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=LENGTH,
            help="Labelled and unlabelled images in a batch of a process, as 1+4. Default: the detector's.",
            show_default=False,
        ),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=LENGTH,
            help="Batches that make one step. Learning rate and length follow the images in a step.",
        ),
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(rich_help_panel=LENGTH, help="fp32, tf32 (fp32 where a GPU has no TF32), bf16 or fp16."),
    ] = "tf32",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            rich_help_panel=LENGTH,
            help="Compile backbone and neck (torch.compile).",
        ),
    ] = False,
    device: Annotated[str, typer.Option(rich_help_panel=MACHINE, help="auto, cuda or cpu.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, max=8, rich_help_panel=MACHINE, help="Loader processes. Default: 4 on a GPU, 0 on a CPU."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=MACHINE, help="CPU threads of PyTorch. Default: OMP_NUM_THREADS, or all cores."
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option(
            "--gpus",
            "--processes",
            min=1,
            rich_help_panel=MACHINE,
            help="Processes on this machine, one GPU each; or on the CPU.",
        ),
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=MACHINE,
            help="Machines, on each of which the same command is given with its --node-rank.",
        ),
    ] = 1,
    node_rank: Annotated[int, typer.Option(min=0, rich_help_panel=MACHINE, help="Number of this machine, from 0.")] = 0,
    rendezvous: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            rich_help_panel=MACHINE,
            help="Free port of machine 0. Default: any, on one machine.",
        ),
    ] = None,
    slurm: Slurm = False,
    slurm_option: SlurmOptions = None,
    out: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Run folder. Default: runs/TASK/METHOD-OPTIONS-SCHEDULE-seed-N.",
            show_default=False,
        ),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="tensorboard, wandb, mlflow or none; repeatable. Default: tensorboard where installed.",
        ),
    ] = None,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--export-config",
            rich_help_panel=OUTPUT,
            help="Write the resolved configuration for mmdet's own Runner to this file; do not train.",
            show_default=False,
        ),
    ] = None,
    plan_only: Annotated[
        bool,
        typer.Option("--plan", rich_help_panel=OUTPUT, help="Check everything and print the plan; do not train."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate one method on one task.

    Everything is checked first and the plan is printed; the run folder then gets the resolved configuration, the log,
    checkpoints, detections, per-class arrays and, last, `result.json`, which `report` reads. Several processes are
    started by --gpus, or by torchrun or srun around this command.
    """
    given = dict(locals())
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine takes a GPU wherever it sees one
    from cissod_bench import api
    from cissod_bench.io import canonical_json

    cluster = cluster_options(slurm, slurm_option)
    prepared, speaks = _prepared(given, elsewhere=cluster is not None)
    if plan_only:
        prepared.check_folder()
    if as_json and plan_only and speaks:
        say(canonical_json(prepared.plan()))
    elif not as_json and speaks:
        say("\n".join(prepared.plan_lines()))
    if exported is not None:
        prepared.export_config(exported)
    if plan_only or exported is not None:
        return
    if cluster is not None:
        print_states([api.submit(prepared, cluster)], as_json=False)
        return
    folder = prepared.run(progress=True)
    if not speaks:
        return
    metrics = folder.result().metrics
    fixed = (folder.fixed_ap_metrics() if fixed_ap else None) or {}
    if as_json:
        say(canonical_json({"out": str(folder.path), "metrics": metrics} | ({"fixed_ap": fixed} if fixed else {})))
        return
    for group, row in metrics.items():
        say(f"{group:>4}  " + "  ".join(f"{name} {_percent(value)}" for name, value in row.items()))
    if fixed:
        say("AP Fixed  " + "  ".join(f"{group} {_percent(row['AP'])}" for group, row in fixed.items()))
    say(f"Results are in {folder.path}; compare runs with `cissod-bench report {quote(str(folder.path.parent))}`.")


def _prepared(given: dict[str, Any], *, elsewhere: bool) -> Any:
    """The run of a command line, checked, and whether this process is the one that speaks."""
    from cissod_bench import api
    from cissod_bench.api.runs import among_started
    from cissod_bench.launch.grid import spec_of

    names = ("as_json", "plan_only", "exported", "node_rank", "rendezvous", "slurm", "slurm_option")
    spec = spec_of({name: value for name, value in given.items() if name not in names and value is not None})
    spec, main = among_started(spec)
    nodes = api.Nodes(given["nodes"], given["node_rank"], given["rendezvous"])
    device = ("cpu" if spec.device == "cpu" else "cuda") if elsewhere else None
    speaks = main and nodes.rank == 0
    return api.prepare(spec, nodes=nodes, look_for_images=speaks, device=device), speaks


def _percent(value: float | None) -> str:
    return "  - " if value is None else f"{100 * value:4.1f}"
