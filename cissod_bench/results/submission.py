"""A run as it is published: what `submit` packs for a pull request, and the statement that comes with it.

::

    result.json                   the record, with file names in place of the paths of a machine
    per_class.npz                 unrounded precision and recall arrays
    detections.json.xz            the detections
    scalars.jsonl                 the logs, for curves; where the run has them
    observables.jsonl
    method.py, detector.py        the source of an own method, the file of an own detector
    submission.toml               contact, licence, hardware, notes; where the data of a custom task is
"""

import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cissod_bench.coco.stream import opened
from cissod_bench.errors import UserError
from cissod_bench.evaluation import load_evaluation, save_evaluation
from cissod_bench.io import read_regular, staged_folder, write_bytes, write_text
from cissod_bench.results.curves import SCALARS
from cissod_bench.results.diagnostics import OBSERVABLES
from cissod_bench.results.record import RESULT_FILE, Result, check_arrays, write_result
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.tasks.registry import TASKS
from cissod_bench.toml import read_toml

SUBMISSION = "submission.toml"
DETECTIONS = "detections.json.xz"
PER_CLASS = "per_class.npz"
LOGS = (SCALARS, OBSERVABLES)
OWN = {"method": "method.py", "detector": "detector.py"}
"""Role in a record -> file of a user's own method or detector."""
PUBLISHED_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9.+=_-]*")
"""What the folder of a published run may be called."""
LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "Apache-2.0", "MIT", "BSD-3-Clause")
"""SPDX names of the licences under which results are published here."""
MOST_BYTES = 40 * 2**20
"""Bytes of all published runs together, and so of one."""
MOST_DETECTION_BYTES = 2**30
"""Bytes of detections, decompressed."""
_PIECE = 2**20


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the people who made a run state about it.

    Attributes:
        contact: whom to ask: a name with an address or a profile.
        licence: of everything in the folder, one of `LICENCES`.
        hardware: what the run was trained on.
        notes: free text.
        data: address of the data of a custom task.
    """

    contact: str
    licence: str
    hardware: str
    notes: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        for name in ("contact", "hardware"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty.")
        if self.licence not in LICENCES:
            raise ValueError(f"licence must be one of {', '.join(LICENCES)}, not {self.licence!r}.")
        if self.data and not re.match(r"https?://\S+$", self.data):
            raise ValueError(f"data must be an address that begins with https://, not {self.data!r}.")


@dataclass(frozen=True)
class Packed:
    """A packed run: its folder, and what reviewers will ask about."""

    folder: Path
    remarks: tuple[str, ...]


def read_submission(folder: Path) -> Submission:
    """The statement in the folder of a published run.

    Raises:
        UserError: there is none, or an entry is missing, unknown or not acceptable.
    """
    return read_toml(folder / SUBMISSION, Submission, "statement", "`cissod-bench submit` writes it.")


def pack(run: Path, out: Path, submission: Submission) -> Packed:
    """Pack a finished run for a pull request.

    Args:
        run: run folder.
        out: folder to make.
        submission: what is stated about it.

    Raises:
        UserError: the run is not finished, lacks detections, arrays or a training seed, is of a custom task without
            an address of its data, or is too large; or `out` is not empty, or has a name that no published run has.
    """
    if not PUBLISHED_NAME.fullmatch(out.name):
        raise UserError(f"--out {out}: name the folder with letters, digits and `.+=_-` only, as `results/` needs it.")
    folder = RunFolder(run)
    if not folder.finished:
        raise UserError(f"{run}: not a finished run ({RESULT_FILE} is missing). Finish it with `cissod-bench run`.")
    result = folder.result()
    for role in ("detections", "per_class"):
        if role not in result.files or not (run / result.files[role]).is_file():
            raise UserError(f"{run}: the run has no {role.replace('_', '-')} file. Without it nobody can re-score it.")
    check_arrays(run, result)
    problem = unpublishable(result, submission)
    if problem:
        raise UserError(f"{run}: {problem}")
    with staged_folder(out) as staging:
        _write_detections(run / result.files["detections"], staging / DETECTIONS)
        evaluation = load_evaluation(run / result.files["per_class"])
        save_evaluation(staging / PER_CLASS, replace(evaluation, annotations=Path(evaluation.annotations).name))
        for log in LOGS:
            if (run / log).is_file():
                write_bytes(staging / log, read_regular(run / log))
        own = {role: name for role, name in OWN.items() if role in result.files}
        for role, name in own.items():
            write_bytes(staging / name, read_regular(run / result.files[role]))
        write_text(staging / SUBMISSION, submission_text(submission))
        write_result(staging / RESULT_FILE, without_paths(result, own))
        size = sum(file.stat().st_size for file in staging.iterdir())
        if size > MOST_BYTES:
            limit = MOST_BYTES >> 20
            raise UserError(f"{run}: {size / 2**20:.1f} MiB packed, and all published runs together have {limit} MiB.")
    return Packed(out, tuple(remarks(result)))


def unpublishable(result: Result, submission: Submission) -> str:
    """Why a record cannot be published, as a sentence; empty if it can."""
    if result.key.train_seed is None:
        return "the training seed is not known. State it (`eval --seed`): runs are told apart by it."
    if result.key.task not in TASKS and not submission.data:
        return f"{result.key.task} is a custom task. Say where its data is (--data)."
    return ""


def remarks(result: Result) -> Iterator[str]:
    """What readers must know about a record, as sentences."""
    if result.git is not None and result.git.dirty:
        yield "made from a source tree with uncommitted changes; tables mark it."
    if result.damaged_images:
        yield f"{len(result.damaged_images)} training images could not be read."


def without_paths(result: Result, own: dict[str, str]) -> Result:
    """A record that names no folder of a machine, and only the files that are published."""
    return msgspec.structs.replace(
        result,
        annotations=Path(result.annotations).name if result.annotations else None,
        split=Path(result.split).name if result.split else None,
        files={"detections": DETECTIONS, "per_class": PER_CLASS, **own},
    )


def submission_text(submission: Submission) -> str:
    """The statement as TOML."""
    return "".join(
        f"{name} = {_quoted(value)}\n" for name, value in msgspec.structs.asdict(submission).items() if value
    )


def detection_pieces(file: Path) -> Iterator[bytes]:
    """The content of a file of detections, decompressed, in pieces.

    Raises:
        UserError: the compressed data is damaged, or there is more of it than `MOST_DETECTION_BYTES`.
    """
    total, buffer = 0, bytearray(_PIECE)
    try:
        with opened(file) as content:
            while count := content.read_into(memoryview(buffer)):
                total += count
                if total > MOST_DETECTION_BYTES:
                    raise UserError(f"{file}: more than {MOST_DETECTION_BYTES >> 20} MiB of detections.")
                yield bytes(buffer[:count])
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None


def _write_detections(source: Path, target: Path) -> None:
    compressor = lzma.LZMACompressor(preset=9)
    with target.open("wb") as file:
        for piece in detection_pieces(source):
            file.write(compressor.compress(piece))
        file.write(compressor.flush())


def _quoted(text: str) -> str:
    """A basic string of TOML; what it has to escape, JSON escapes in the same way, but for DEL."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
