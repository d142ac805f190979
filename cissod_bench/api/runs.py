"""Runs: prepared, made, swept, and used afterwards."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cissod_bench.api.paths import AnyPath, optional
from cissod_bench.errors import UserError
from cissod_bench.launch.nodes import Nodes
from cissod_bench.training.quiet import quiet_imports
from cissod_bench.training.spec import RunSpec

if TYPE_CHECKING:
    from cissod_bench.launch.status import SweepRun
    from cissod_bench.results.run_folder import RunFolder
    from cissod_bench.training.job import Job
    from cissod_bench.training.predict import Predictor


@dataclass(frozen=True)
class PreparedRun:
    """A run that has been looked up and checked, and has not started.

    Attributes:
        job: everything that was looked up.
        nodes: the machines, where there are several.
    """

    job: "Job"
    nodes: Nodes

    def plan(self) -> dict[str, Any]:
        """What the run is going to do: batch, learning rate, length, estimated hours, ..."""
        from cissod_bench.training.run_plan import plan

        return plan(self.job)

    def plan_lines(self) -> list[str]:
        """The plan as lines of text."""
        from cissod_bench.training.run_plan import plan_lines

        return plan_lines(self.job)

    def export_config(self, file: AnyPath) -> None:
        """Write the resolved configuration for mmdet's own Runner.

        Raises:
            UserError: the name does not end in .py, or the file exists with another content.
        """
        from cissod_bench.training.build_config import export_config

        export_config(self.job, Path(file))

    def run(self, *, progress: bool = False) -> "RunFolder":
        """Train and evaluate, see `run`."""
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
    """Look up and check everything that a run needs, before anything is written.

    Args:
        spec: the run.
        nodes: the machines, where there are several.
        look_for_images: whether to look for every image on disk.
        device: where the run is for another machine than this one, its device.

    Raises:
        UserError: something does not exist or does not fit.

    Example:
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
    """A spec whose processes are those that torchrun or srun has started, and whether this one is the main one.

    Raises:
        UserError: the spec has processes of its own.
    """
    with quiet_imports():
        from cissod_bench.launch import here
    return here.among_started(spec)


def submit(prepared: PreparedRun, cluster: Mapping[str, Any]) -> "SweepRun":
    """Submit a run as a job, unless it is on its way already or done.

    Args:
        prepared: the run.
        cluster: as of `sweep`.

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

    An unfinished run of the same spec continues from its newest checkpoint; a finished one is left as it is.

    Args:
        spec: the run.
        progress: show bars on standard error.

    Returns:
        the run folder; its `result()` is the record.

    Raises:
        UserError: something does not exist or does not fit, or the folder holds another run.
        Stopped: a signal asked the run to stop.
        ProcessDied: one of several processes died.

    Example:
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
    """The teacher of a run, to detect objects with.

    Args:
        run: run folder.
        checkpoint: one of the run's checkpoints. Default: the newest.
        device: "auto", "cpu" or "cuda".
        trust: execute what the run brings along, such as the source of its own method.

    Raises:
        UserError: no run there, or no checkpoint that can be used.

    Example:
        >>> import cissod_bench as cb
        >>> detector = cb.load_detector("runs/soft-teacher")
        >>> found = detector.predict("splits/shapes/data/val/000001.png")
        >>> len(found.boxes) == len(found.scores) == len(found.names)
        True
    """
    with quiet_imports():
        from cissod_bench.training.device import pick_device
        from cissod_bench.training.predict import load_predictor
    return load_predictor(Path(run), optional(checkpoint), pick_device(device), trust=trust)


def export(run: AnyPath, out: AnyPath, *, trust: bool = False) -> tuple[Path, list[str]]:
    """Write the teacher of a finished run as a bundle to publish: weights (safetensors), configuration, scores.

    Args:
        run: run folder.
        out: folder for the bundle.
        trust: as of `load_detector`.

    Returns:
        The checkpoint that the weights are from, and the parts of this package that the configuration needs.

    Raises:
        UserError: the run is not finished, or `out` holds something.

    Example:
        >>> import cissod_bench as cb
        >>> checkpoint, needs = cb.export("runs/soft-teacher", "bundle")
        >>> needs
        []
    """
    with quiet_imports():
        from cissod_bench.training.export import export_bundle
    return export_bundle(Path(run), Path(out), trust=trust)


def sweep(
    runs: AnyPath | Sequence[RunSpec],
    out: AnyPath | None = None,
    *,
    start: bool = True,
    cluster: Mapping[str, Any] | None = None,
) -> "list[SweepRun]":
    """Make all runs of a grid, one after the other, each in a process of its own; or submit them as jobs.

    Again, it skips what is done, continues what was interrupted and tries again what failed.

    Args:
        runs: specs, or a sweep file (.toml).
        out: folder of the run folders. Default: the file's, or runs.
        start: False to make nothing, and only say where each run stands.
        cluster: options of the cluster to submit to, with `cluster` ("slurm" or "local") and `time` in minutes.

    Returns:
        every run with its `name`, `spec`, `state` ("done", "failed", "waiting", "running", "queued", "another run") and
        the `reason`.

    Raises:
        UserError: a run that cannot be made, or a folder that holds another run.
        Stopped: a signal came; the run under way has stopped too.

    Example:
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
    found = make_members(members, start=start, cluster=cluster)
    refuse_other_runs([run.state for run in found])
    return found
