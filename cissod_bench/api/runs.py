"""Runs: prepare, execute, sweep, and use the results."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cissod_bench.api.paths import AnyPath, optional
from cissod_bench.errors import UserError
from cissod_bench.launch.nodes import Nodes
from cissod_bench.training.process.quiet import quiet_imports
from cissod_bench.training.spec import RunSpec

if TYPE_CHECKING:
    from cissod_bench.launch.status import SweepRun
    from cissod_bench.results.run_folder import RunFolder
    from cissod_bench.training.job import Job
    from cissod_bench.training.trained.predict import Predictor


@dataclass(frozen=True)
class PreparedRun:
    """A run that is checked but not started.

    Attributes:
        job: the resolved run.
        nodes: the machines of the run.
    """

    job: "Job"
    nodes: Nodes

    def plan(self) -> dict[str, Any]:
        """The plan of the run: batch, learning rate, length, estimated hours, ..."""
        from cissod_bench.training.run_plan import plan

        return plan(self.job)

    def plan_lines(self) -> list[str]:
        """The plan as lines of text."""
        from cissod_bench.training.run_plan import plan_lines

        return plan_lines(self.job)

    def check_folder(self) -> None:
        """Look at the run folder as `run` will, and write nothing.

        Raises:
            UserError: it holds something else, or another run; or cannot be written to.
        """
        with quiet_imports():
            from cissod_bench.training.runner import check_folder

        check_folder(self.job)

    def export_config(self, file: AnyPath) -> None:
        """Write the resolved configuration for mmdet's own Runner.

        Raises:
            UserError: the name does not end in .py, or the file exists with other content.
        """
        from cissod_bench.training.build_config import export_config

        export_config(self.job, Path(file))

    def run(self, *, progress: bool = False) -> "RunFolder":
        """Train and evaluate, see `run`."""
        with quiet_imports():
            from cissod_bench.launch.here import run_here

        run_here(self.job, self.nodes, progress=progress)
        return self.job.folder


def prepare(
    spec: RunSpec,
    *,
    nodes: Nodes | None = None,
    look_for_images: bool = True,
    device: str | None = None,
) -> PreparedRun:
    """Resolve and check everything that a run needs, before anything is written.

    Args:
        spec: the run.
        nodes: the machines of the run; by default this one.
        look_for_images: whether to check that every image exists.
        device: device of the machine that executes the run, if it is not this one.

    Raises:
        UserError: something does not exist or does not fit.

    Examples:
        >>> import cissod_bench as cb
        >>> spec = cb.RunSpec(task="shapes", method="gbs", split="splits/shapes", schedule="smoke", device="cpu")
        >>> cb.prepare(spec).plan()["iterations"]
        3
    """
    with quiet_imports():
        from cissod_bench.training.job import resolve_job
        from cissod_bench.training.preflight import check_parts
    job = resolve_job(spec, look_for_images=look_for_images, device=device)
    check_parts(job)
    return PreparedRun(job, nodes or Nodes(spec.nodes))


def among_started(spec: RunSpec) -> tuple[RunSpec, bool]:
    """The spec with the number of processes that torchrun or srun started, and whether this is the main process.

    Raises:
        UserError: the spec asks for several processes itself.
    """
    with quiet_imports():
        from cissod_bench.launch import here
    return here.among_started(spec)


def submit(prepared: PreparedRun, cluster: Mapping[str, Any]) -> "SweepRun":
    """Submit a run as a job, unless it is already submitted, running or done.

    Args:
        prepared: the run.
        cluster: options of the cluster, see `sweep`.

    Raises:
        UserError: the folder holds another run, or the cluster refuses the job.
    """
    from cissod_bench.launch.status import Member
    from cissod_bench.launch.sweep import make_members

    spec, out = prepared.job.spec, prepared.job.out
    member = Member(out.name, out.parent, msgspec.structs.replace(spec, out=out))
    (state,) = make_members([member], cluster=cluster)
    if state.state == "another run":
        raise UserError(f"{out} {state.reason}. Give another --out.")
    return state


def run(spec: RunSpec, *, progress: bool = False) -> "RunFolder":
    """Train and evaluate one method on one task, and record it.

    An unfinished run of the same spec resumes from its newest checkpoint; a finished one is left unchanged.

    Args:
        spec: the run.
        progress: whether to show progress on standard error.

    Returns:
        The run folder; its `result()` is the record.

    Raises:
        UserError: something does not exist or does not fit, or the folder holds another run.
        Stopped: the run received a signal to stop.
        ProcessDied: one of several processes died.

    Examples:
        >>> import cissod_bench as cb
        >>> spec = cb.RunSpec(task="shapes", method="soft-teacher", split="splits/shapes", out="runs/soft-teacher",
        ...                   iterations=2, device="cpu")
        >>> finished = cb.run(spec)
        >>> finished.result().key.method
        'soft-teacher'
    """
    spec, main = among_started(spec)
    return prepare(spec, look_for_images=main).run(progress=progress)


def load_detector(
    run: AnyPath, checkpoint: AnyPath | None = None, device: str = "cpu", *, trust: bool = False
) -> "Predictor":
    """Load the teacher of a run to detect objects.

    Args:
        run: run folder.
        checkpoint: one of the run's checkpoints. Default: the newest.
        device: "auto", "cpu" or "cuda".
        trust: execute what the run brings along, such as the source of its own method.

    Raises:
        UserError: the folder holds no run, or no usable checkpoint.

    Examples:
        >>> import cissod_bench as cb
        >>> detector = cb.load_detector("runs/soft-teacher")
        >>> found = detector.predict("splits/shapes/data/val/000001.png")
        >>> len(found.boxes) == len(found.scores) == len(found.names)
        True
    """
    with quiet_imports():
        from cissod_bench.training.process.device import pick_device
        from cissod_bench.training.trained.predict import load_predictor
    return load_predictor(Path(run), optional(checkpoint), pick_device(device), trust=trust)


def export(run: AnyPath, out: AnyPath, *, trust: bool = False) -> tuple[Path, list[str]]:
    """Bundle the teacher of a finished run for publication: weights (safetensors), configuration, scores.

    Args:
        run: run folder.
        out: folder for the bundle.
        trust: as of `load_detector`.

    Returns:
        The checkpoint with the weights, and the parts of this package that the configuration needs.

    Raises:
        UserError: the run is not finished, or `out` is not empty.

    Examples:
        >>> import cissod_bench as cb
        >>> checkpoint, needs = cb.export("runs/soft-teacher", "bundle")
        >>> needs
        []
    """
    with quiet_imports():
        from cissod_bench.training.trained.export import export_bundle
    return export_bundle(Path(run), Path(out), trust=trust)


def sweep(
    runs: AnyPath | Sequence[RunSpec],
    out: AnyPath | None = None,
    *,
    start: bool = True,
    cluster: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    gpus_per_run: int | None = None,
) -> "list[SweepRun]":
    """Run a grid: one run after another or several at a time, each in its own process, or as Slurm jobs.

    Repeated, it skips finished runs, resumes interrupted ones and retries failed ones.

    Args:
        runs: specs, or a sweep file (.toml).
        out: folder for all run folders. Default: that of the sweep file, or runs.
        start: False to only return the state of each run.
        cluster: options of the cluster to submit to, with `cluster` ("slurm" or "local") and `time` in minutes.
        jobs: runs at a time on this machine, 1 by default.
        gpus_per_run: GPUs that each run has for itself; then as many runs at a time as there are GPUs for.

    Returns:
        Every run with `name`, `spec`, `state` ("done", "failed", "waiting", "running", "queued", "another run") and
        `reason`.

    Raises:
        UserError: a run is not possible, or a folder holds another run.
        Stopped: the sweep received a signal; the current run has stopped too.

    Examples:
        >>> import cissod_bench as cb
        >>> specs = [cb.RunSpec(task="shapes", method=method, split="splits/shapes", iterations=1, device="cpu")
        ...          for method in ("rfs", "gbs")]
        >>> [run.state for run in cb.sweep(specs, "sweep", start=False)]
        ['waiting', 'waiting']
    """
    from cissod_bench.launch.grid import read_grid
    from cissod_bench.launch.sweep import grid_members, make_members, refuse_other_runs, spec_members

    if isinstance(runs, str | os.PathLike):
        grid = read_grid(Path(runs), {})
        members = grid_members(grid.runs, Path(out or grid.out or "runs"))
    else:
        members = spec_members(runs, Path(out or "runs"))
    found = make_members(members, start=start, cluster=cluster, jobs=jobs, gpus_per_run=gpus_per_run)
    refuse_other_runs([run.state for run in found])
    return found
