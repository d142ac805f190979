"""The state of each run of a sweep: from its folder, and from what was noted when it was last started.

Notes and logs lie in `sweep/` next to the run folders, named after the run: `sweep/TASK/RUN.json` and `RUN.log`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import write_bytes
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.slurm import job_state, submit
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.results.run_key import facts_of, key_differences
from cissod_bench.training.spec import RunSpec, run_key

State = Literal["done", "running", "queued", "failed", "waiting", "another run"]


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: its folder, relative to the sweep's.
        root: the sweep's folder.
        spec: the run, with its folder.
    """

    name: str
    root: Path
    spec: RunSpec

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.root / self.name

    @property
    def folder(self) -> RunFolder:
        """The same with what is in it."""
        return RunFolder(self.out)

    @property
    def log(self) -> Path:
        """What the run printed when it was last started here."""
        return self.root / "sweep" / f"{self.name}.log"

    @property
    def note(self) -> Path:
        """How it ended, or where it was submitted."""
        return self.root / "sweep" / f"{self.name}.json"


class Note(msgspec.Struct, omit_defaults=True):
    """What a sweep remembers of a run.

    Attributes:
        failed: why it failed, None if it did not.
        cluster: where it was submitted ("slurm" or "local"), None if it was started directly.
        job: number of the job there.
        asked: what the run was when it was submitted (`run_key.Facts`).
    """

    failed: str | None = None
    cluster: str | None = None
    job: str | None = None
    asked: dict[str, Any] = {}


@dataclass(frozen=True)
class Standing:
    """State of a run, with a reason where it needs one."""

    state: State
    reason: str = ""


@dataclass(frozen=True)
class SweepRun(Member):
    """One run of a sweep with its state and, where it needs one, the reason."""

    state: State
    reason: str


def with_state(member: Member) -> SweepRun:
    """A run with its state, see `standing`."""
    state = standing(member)
    return SweepRun(member.name, member.root, member.spec, state.state, state.reason)


def write_note(member: Member, note: Note) -> None:
    """Remember."""
    write_bytes(member.note, msgspec.json.encode(note))


def read_note(member: Member) -> Note:
    """What is remembered of a run, an empty note if nothing is.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return msgspec.json.decode(member.note.read_bytes(), type=Note)
    except FileNotFoundError:
        return Note()
    except msgspec.DecodeError as error:
        raise UserError(f"{member.note}: not a sweep's note ({error}). Remove it.") from None


def standing(member: Member) -> Standing:
    """The state of a run, whose folder and job are compared with its spec.

    Raises:
        UserError: the note is damaged.
    """
    try:
        held = member.folder.held()
        found = "" if held is None else _differences(held, member.spec)
    except UserError as error:
        return Standing("failed", str(error))
    if found:
        return Standing("another run", f"holds another run: {found}")
    if member.folder.finished:
        return Standing("done")
    if member.folder.in_use:
        return Standing("running")
    note = read_note(member)
    if note.failed is not None:
        return Standing("failed", note.failed)
    if note.cluster is None or note.job is None:
        return Standing("waiting")
    state = Standing(*job_state(note.cluster, note.job, member.note.parent))
    return state if state.state == "failed" else _job_standing(note, state, member.spec)


def _differences(held: Mapping[str, Any], spec: RunSpec) -> str:
    return "; ".join(key_differences(held, facts_of(run_key(spec))))


def _job_standing(note: Note, state: Standing, spec: RunSpec) -> Standing:
    """The state of a job, unless it was submitted for another run than this one."""
    try:
        found = _differences(note.asked, spec) if note.asked else ""
    except UserError as error:
        return Standing("failed", str(error))
    return Standing("another run", f"is taken by job {note.job} for another run: {found}") if found else state


def submit_member(member: Member, options: Mapping[str, Any]) -> str:
    """Submit a run as a job, and remember its number, which is returned.

    Args:
        member: the run.
        options: `cluster` and what it is to know, see `slurm.submit`.

    Raises:
        UserError: the run cannot be made, or the cluster refuses it.
    """
    asked = facts_of(run_key(member.spec))
    job = submit(run_arguments(member.spec), member.log, member.note.parent, options)
    write_note(member, Note(cluster=str(options["cluster"]), job=job, asked=asked))
    return job
