"""The state of each run of a sweep, from its folder and from the note written when it was last started.

Notes and logs are in `sweep/` next to the run folders: `sweep/TASK/RUN.json` and `sweep/TASK/RUN.log`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import decode_json, read_regular, write_bytes
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.slurm import job_state, submit
from cissod_bench.results.run_folder import NOT_RESUMABLE, RunFolder, begun_by_version_0_1
from cissod_bench.results.run_key import facts_of, key_differences
from cissod_bench.training.spec import RunSpec, run_key

State = Literal["done", "running", "queued", "failed", "waiting", "another run"]

LEFT = ("waiting", "failed", "another run")
"""States of runs that are neither finished nor started."""


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: its folder, relative to that of the sweep.
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
        """The run folder with its files."""
        return RunFolder(self.out)

    @property
    def log(self) -> Path:
        """Output of the run when it was last started here."""
        return self.root / "sweep" / f"{self.name}.log"

    @property
    def note(self) -> Path:
        """File that says how the run ended or where it was submitted."""
        return self.root / "sweep" / f"{self.name}.json"


class Note(msgspec.Struct, omit_defaults=True):
    """What a sweep remembers of a run.

    Attributes:
        failed: why it failed; None if it did not.
        cluster: where it was submitted ("slurm" or "local"); None if it was started directly.
        job: number of the job there.
        facts: the run key at the time of submission (`run_key.Facts`), "asked" in the file.
    """

    failed: str | None = None
    cluster: str | None = None
    job: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_+.]{1,64}$")] | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict, name="asked")


@dataclass(frozen=True)
class RunState:
    """State of a run, with a reason where it needs one."""

    state: State
    reason: str = ""


@dataclass(frozen=True)
class SweepRun(Member):
    """One run of a sweep with its state and, where it needs one, the reason."""

    state: State
    reason: str


def with_state(member: Member) -> SweepRun:
    """A run with its state, see `state_of`."""
    state = state_of(member)
    return SweepRun(member.name, member.root, member.spec, state.state, state.reason)


def write_note(member: Member, note: Note) -> None:
    """Write what to remember of a run."""
    write_bytes(member.note, msgspec.json.encode(note))


def read_note(member: Member) -> Note:
    """Read the note of a run; an empty note if there is none.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = read_regular(member.note)
    except FileNotFoundError:
        return Note()
    except OSError as error:
        raise UserError(f"{member.note}: cannot be read ({error.strerror}). Remove it.") from None
    return decode_json(content, Note, name=member.note, remedy="Remove it.")


def state_of(member: Member) -> RunState:
    """The state of a run; its folder and its job are compared with its spec.

    Raises:
        UserError: the note is damaged.
    """
    try:
        recorded = member.folder.held()
        found = "" if recorded is None else _differences(recorded, member.spec)
    except UserError as error:
        return RunState("failed", str(error))
    if found:
        return RunState("another run", f"holds another run: {found}")
    if member.folder.finished and (member.folder.fixed_ap.exists() or not member.spec.fixed_ap):
        return RunState("done")
    if member.folder.in_use:
        return RunState("running")
    if recorded is not None and begun_by_version_0_1(recorded):
        return RunState("another run", NOT_RESUMABLE)
    note = read_note(member)
    if note.failed is not None:
        return RunState("failed", note.failed)
    if note.cluster is None or note.job is None:
        return RunState("waiting")
    state = RunState(*job_state(note.cluster, note.job, member.note.parent))
    return state if state.state == "failed" else _job_state(note, state, member.spec)


def _differences(recorded: Mapping[str, Any], spec: RunSpec) -> str:
    return "; ".join(key_differences(recorded, facts_of(run_key(spec))))


def _job_state(note: Note, state: RunState, spec: RunSpec) -> RunState:
    """The state of a job, unless it was submitted for another run."""
    try:
        found = _differences(note.facts, spec) if note.facts else ""
    except UserError as error:
        return RunState("failed", str(error))
    return RunState("another run", f"is taken by job {note.job} for another run: {found}") if found else state


def submit_member(member: Member, options: Mapping[str, Any]) -> str:
    """Submit a run as a job, note the job number and return it.

    Args:
        member: the run.
        options: `cluster` and its options, see `slurm.submit`.

    Raises:
        UserError: the run is not possible, or the cluster refuses it.
    """
    facts = facts_of(run_key(member.spec))
    job = submit(run_arguments(member.spec), member.log, member.note.parent, options)
    write_note(member, Note(cluster=str(options["cluster"]), job=job, facts=facts))
    return job
