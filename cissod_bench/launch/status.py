"""Where each run of a sweep stands: from its folder, and from what was noted when it was last started.

Notes and logs lie in `sweep/` beside the run folders, by the name of the run: `sweep/TASK/RUN.json` and `RUN.log`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import in_use, write_bytes
from cissod_bench.launch.held import differences, held_run
from cissod_bench.launch.slurm import job_state, submit
from cissod_bench.results.record import IN_USE, RESULT_FILE

State = Literal["done", "running", "queued", "failed", "waiting", "another run"]


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: its folder, relative to the sweep's.
        root: the sweep's folder.
        arguments: of `run`, without --out.
        given: the same, parsed: options of `run` by name, those with their defaults too.
    """

    name: str
    root: Path
    arguments: tuple[str, ...]
    given: Mapping[str, Any]

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.root / self.name

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
        asked: what the run was asked to be when it was submitted, by the names of a record's key.
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


def standing(member: Member, asked: Callable[[], Mapping[str, Any]]) -> Standing:
    """Where a run stands.

    Args:
        member: the run.
        asked: what it is asked to be, by the names of a record's key; called where there is something to hold against
            it.

    Raises:
        UserError: the note is damaged.
    """
    try:
        held = held_run(member.out)
        found = "" if held is None else differences(held, asked())
    except UserError as error:
        return Standing("failed", str(error))
    if found:
        return Standing("another run", f"holds another run: {found}")
    if (member.out / RESULT_FILE).exists():
        return Standing("done")
    if in_use(member.out / IN_USE):
        return Standing("running")
    note = read_note(member)
    if note.failed is not None:
        return Standing("failed", note.failed)
    if note.cluster is None or note.job is None:
        return Standing("waiting")
    state = Standing(*job_state(note.cluster, note.job, member.note.parent))
    return state if state.state == "failed" else _job_standing(note, state, asked)


def _job_standing(note: Note, state: Standing, asked: Callable[[], Mapping[str, Any]]) -> Standing:
    """The state of a job, unless it was submitted for another run than the one that is asked for."""
    try:
        found = differences(note.asked, asked()) if note.asked else ""
    except UserError as error:
        return Standing("failed", str(error))
    return Standing("another run", f"is taken by job {note.job} for another run: {found}") if found else state


def submit_member(member: Member, asked: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Submit a run as a job, and remember its number, which is returned.

    Args:
        member: the run.
        asked: what it is asked to be, by the names of a record's key.
        options: `cluster` and what it is to know, see `cluster.submit`.

    Raises:
        UserError: the cluster refuses it.
    """
    job = submit([*member.arguments, "--out", str(member.out)], member.log, member.note.parent, options)
    write_note(member, Note(cluster=str(options["cluster"]), job=job, asked=dict(asked)))
    return job


def reason_of(log: Path, exit_code: int) -> str:
    """Why a run failed, from the last line that it printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1] if lines else "no output")
    how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return f"{said.removeprefix('Error: ')} ({how}; {log})"
