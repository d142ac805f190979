"""Are published results what they say? Schema, key, digests, statement, duplicates, and AP re-scored from detections.

What this cannot see: whether the detections come from the training that the key names. That is what the seed, the
versions and the commit in the record are for.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import msgspec
import numpy as np

from cissod_bench.errors import UserError
from cissod_bench.evaluation import Evaluation, evaluate, load_evaluation
from cissod_bench.io import canonical_json, read_regular, sha256_file
from cissod_bench.results.known_truth import KnownTruths
from cissod_bench.results.published import INDEX, make_index, published_runs
from cissod_bench.results.record import RESULT_FILE, Result, check_arrays, load_result
from cissod_bench.results.run_key import replicate_key
from cissod_bench.results.submission import (
    DETECTIONS,
    LOGS,
    MOST_BYTES,
    OWN,
    PER_CLASS,
    PUBLISHED_NAME,
    SUBMISSION,
    detection_pieces,
    read_submission,
    remarks,
    unpublishable,
)
from cissod_bench.tasks.registry import TASKS

NEEDED = (RESULT_FILE, PER_CLASS, DETECTIONS, SUBMISSION)
ALLOWED = (*NEEDED, *LOGS, *OWN.values())
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Package:
    """What the installed package says about its methods and about detector files.

    Attributes:
        versions: name of a method -> its version.
        detector_digest: digest of what a detector file says; raises `UserError` for a file that is none.
    """

    versions: Mapping[str, int]
    detector_digest: Callable[[Path], str]


@dataclass
class Checked:
    """What was found.

    Attributes:
        runs: names of the runs.
        rescored: those whose AP was scored again from their detections.
        problems: what is wrong, as "run: sentence"; empty if the results can be published.
        remarks: what is not wrong but worth knowing.
    """

    runs: list[str] = field(default_factory=list)
    rescored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_results(folder: Path, package: Package, truths: KnownTruths) -> Checked:
    """Check a folder of published runs.

    Args:
        folder: with a folder for each run, and the index.
        package: what the records are held against.
        truths: ground truths to score the detections against; where a run's is missing, a remark says so.

    Raises:
        UserError: no such folder.
    """
    found = Checked()
    records: dict[str, Result] = {}
    for path in published_runs(folder):
        found.runs.append(path.name)
        problems = list(_file_problems(path))
        if not problems:
            try:
                records[path.name] = result = load_result(path / RESULT_FILE)
                problems += _record_problems(path, result, package)
                problems += _array_problems(path, result)
                found.remarks += [f"{path.name}: {remark}" for remark in (*remarks(result), *_stale(result, package))]
                if not problems:
                    problems += _score(path, result, truths, found)
            except UserError as error:
                problems.append(str(error).removeprefix(f"{path}/"))
        found.problems += [f"{path.name}: {problem}" for problem in problems]
    found.problems += _duplicates(folder, records)
    found.problems += _conflicting_groups(folder, records)
    found.problems += _folder_problems(folder, whole=len(records) == len(found.runs))
    return found


def _file_problems(path: Path) -> Iterator[str]:
    if path.is_symlink() or not PUBLISHED_NAME.fullmatch(path.name):
        yield "not a folder whose name has letters, digits and `.+=_-` only."
        return
    entries = {entry.name: entry for entry in path.iterdir()}
    for name in NEEDED:
        if name not in entries:
            yield f"{name} is missing. Pack the run with `cissod-bench submit`."
    for name, entry in sorted(entries.items()):
        if name not in ALLOWED:
            yield f"{name} is not part of a published run. Remove it."
        elif entry.is_symlink() or not entry.is_file():
            yield f"{name} is not a regular file."


def _record_problems(path: Path, result: Result, package: Package) -> Iterator[str]:
    key = result.key
    submission = read_submission(path)
    problem = unpublishable(result, submission)
    if problem:
        yield problem
    digests = {
        "split_digest": key.split_digest,
        "annotations_digest": result.annotations_digest,
        "method_digest": key.method_digest,
        "detector_digest": key.detector_digest,
    }
    for name, value in digests.items():
        if not (value is None and name in ("method_digest", "detector_digest")) and not _DIGEST.fullmatch(value or ""):
            yield f"{name} is {value!r}, not a SHA-256."
    if key.task in TASKS and key.protocol > TASKS[key.task].version:
        yield f"protocol {key.protocol} of {key.task}, which is at version {TASKS[key.task].version}."
    if key.method_digest is None and key.method in package.versions:
        known = package.versions[key.method]
        if key.method_version is None or key.resolved_options is None:
            yield f"version and options of {key.method} are not recorded. Run it with this version of the package."
        elif key.method_version > known:
            yield f"version {key.method_version} of {key.method}, which is at version {known}."
    resolved = key.resolved_options or {}
    for name, value in key.method_options.items():
        if key.resolved_options is not None and resolved.get(name) != value:
            yield f"option {name} is {value!r} among the changed options and {resolved.get(name)!r} among all."
    own = {"method": (key.method_digest, sha256_file), "detector": (key.detector_digest, package.detector_digest)}
    for role, (digest, digest_of) in own.items():
        file = path / OWN[role]
        if (digest is None) == file.is_file():
            yield f"{OWN[role]} {'is missing' if digest else 'is there, and the key names none'}."
        elif digest is not None and digest_of(file) != digest:
            yield f"{OWN[role]} is not the file that the key names."
    named = [result.annotations or "", result.split or "", load_evaluation(path / PER_CLASS).annotations]
    yield from (f"names a folder of a machine ({text})." for text in named if "/" in text or "\\" in text)


def _array_problems(path: Path, result: Result) -> Iterator[str]:
    check_arrays(path, result)
    arrays = load_evaluation(path / PER_CLASS)
    if result.files.get("per_class") != PER_CLASS or result.files.get("detections") != DETECTIONS:
        yield f"the record does not name {PER_CLASS} and {DETECTIONS}."
    if arrays.annotations_digest != result.annotations_digest:
        yield f"{PER_CLASS} is of another ground truth than the record."
    elif arrays.metrics() != result.metrics:
        yield f"{PER_CLASS} gives other metrics than the record, in the last digits."
    used = (arrays.evaluator, arrays.max_detections, "lvis" if arrays.lvis else "coco")
    if used != (result.key.evaluator, result.key.max_detections, result.key.rules):
        yield f"{PER_CLASS} was made with {used}, the key says otherwise."
    minority = TASKS[result.key.task].minority if result.key.task in TASKS else ()
    if minority and set(arrays.groups.get("min", ())) != set(minority):
        yield f"group 'min' is not the minority of {result.key.task}."


def _stale(result: Result, package: Package) -> Iterator[str]:
    key = result.key
    known = package.versions.get(key.method) if key.method_digest is None else None
    if known is not None and key.method_version is not None and key.method_version < known:
        yield f"version {key.method_version} of {key.method}, which is at version {known}: run it again."
    if key.task in TASKS and key.protocol < TASKS[key.task].version:
        yield f"protocol {key.protocol} of {key.task}, which is at version {TASKS[key.task].version}: run it again."


def _score(path: Path, result: Result, truths: KnownTruths, found: Checked) -> Iterator[str]:
    """Score the detections again; the arrays have to be the same to the bit."""
    truth = truths.find(result)
    if truth is None:
        if result.key.task in TASKS and TASKS[result.key.task].files is None:
            yield f"the ground truth is not that of {result.key.task}."
            return
        found.remarks.append(
            f"{path.name}: AP is not scored again, since the ground truth ({result.annotations}) is not here. Give it "
            "with --annotations."
        )
        return
    for _ in detection_pieces(path / DETECTIONS):  # refuses more than can be read
        pass
    stored = load_evaluation(path / PER_CLASS)
    scored = evaluate(
        truth,
        path / DETECTIONS,
        {group: names for group, names in stored.groups.items() if not group.startswith("official-")},
        classes=stored.groups["all"],
        evaluator=result.key.evaluator,
        max_detections=result.key.max_detections,
        lvis=result.key.rules == "lvis",
    )
    found.rescored.append(path.name)
    if not _same(scored, stored) or scored.metrics() != result.metrics:
        yield (
            f"{DETECTIONS} gives {scored.metrics()['all']['AP']!r} as AP of all classes, the record "
            f"{result.metrics['all']['AP']!r}; every number has to be the same to the last bit."
        )


def _same(one: Evaluation, other: Evaluation) -> bool:
    arrays = ("class_ids", "num_ground_truth", "precision", "recall")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return same and one.class_names == other.class_names and one.groups == other.groups


def _duplicates(folder: Path, records: Mapping[str, Result]) -> Iterator[str]:
    """Runs of one key and seed, and detections that come twice; detectors that found nothing are no copies."""
    by_key: dict[str, str] = {}
    by_content: dict[str, str] = {}
    for name, result in records.items():
        key = canonical_json([replicate_key(result.key), result.key.train_seed])
        if (first := by_key.setdefault(key, name)) != name:
            yield f"{name}: the same run as {first}: key and training seed are equal."
        try:
            content, size = hashlib.sha256(), 0
            for piece in detection_pieces(folder / name / DETECTIONS):
                content.update(piece)
                size += len(piece)
        except UserError:
            continue  # already a problem of the run, whose detections cannot be scored
        if size > len(b"[]\n") and (first := by_content.setdefault(content.hexdigest(), name)) != name:
            yield f"{name}: has the detections of {first}, to the bit."


def _conflicting_groups(folder: Path, records: Mapping[str, Result]) -> Iterator[str]:
    """Runs on one split have one set of class groups."""
    by_split: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {}
    for name, result in records.items():
        try:
            groups = load_evaluation(folder / name / PER_CLASS).groups
        except UserError:
            continue  # already a problem of the run
        first, expected = by_split.setdefault(result.key.split_digest, (name, groups))
        if groups != expected:
            yield f"{name}: other class groups than {first} on the same split."


def _folder_problems(folder: Path, *, whole: bool) -> Iterator[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        yield f"{folder.name}: {size / 2**20:.1f} MiB, more than {MOST_BYTES >> 20}."
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and path.name not in (INDEX, "README.md"):
            yield f"{path.name}: not part of the published results. Remove it."
    if whole:
        try:
            stored = msgspec.json.decode(read_regular(folder / INDEX))
            if stored == make_index(folder):
                return
        except (OSError, UserError, msgspec.DecodeError):
            pass
        command = f"cissod-bench check-results {quote(str(folder))} --write-index"
        yield f"{INDEX}: missing or not that of the folder. Write it with `{command}`."
