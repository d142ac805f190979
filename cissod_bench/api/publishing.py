"""Published results: pack a run, check a folder of published runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cissod_bench.api.paths import AnyPath

if TYPE_CHECKING:
    from cissod_bench.results.check_results import Checked
    from cissod_bench.results.submission import Packed


def pack_submission(
    run: AnyPath,
    out: AnyPath,
    *,
    contact: str,
    licence: str,
    hardware: str,
    notes: str = "",
    data: str = "",
) -> "Packed":
    """Pack a finished run for a pull request: record, per-class arrays, compressed detections, logs and a statement.

    Args:
        run: run folder.
        out: folder to make, such as results/shapes-gbs-seed-0.
        contact: whom to ask, a name with an address or a profile.
        licence: of everything packed: CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, Apache-2.0, MIT or BSD-3-Clause.
        hardware: what the run was trained on.
        notes: free text.
        data: address of the data, needed for a custom task.

    Returns:
        The folder, and remarks such as that the source tree had uncommitted changes.

    Raises:
        UserError: the run is not finished or cannot be re-scored, a statement is missing, or `out` is not empty.

    Examples:
        >>> import cissod_bench as cb
        >>> packed = cb.pack_submission("runs/soft-teacher", "results/soft-teacher", contact="A. Name <a@name.org>",
        ...                             licence="CC-BY-4.0", hardware="2 CPU cores")
        >>> sorted(path.name for path in packed.folder.iterdir())[:3]
        ['detections.json.xz', 'observables.jsonl', 'per_class.npz']
    """
    import msgspec

    from cissod_bench.errors import UserError
    from cissod_bench.results.submission import Submission, pack

    stated = {"contact": contact, "licence": licence, "hardware": hardware, "notes": notes, "data": data}
    try:
        submission = msgspec.convert(stated, Submission)
    except msgspec.ValidationError as error:
        raise UserError(f"The statement cannot be published: {error}") from None
    return pack(Path(run), Path(out), submission)


def check_results(
    folder: AnyPath,
    *,
    annotations: Sequence[AnyPath] = (),
    data_root: AnyPath = "data",
    write_index: bool = False,
) -> "Checked":
    """Check published runs: schema, key, digests, statement, duplicates, and AP scored again from the detections.

    Args:
        folder: folder of published runs, such as results/.
        annotations: ground truths, found by their digest. The embedded tasks need none.
        data_root: folder that the tasks' paths are relative to.
        write_index: write the index of the folder first.

    Returns:
        `problems`, empty if nothing is wrong; `remarks`, such as ground truths that are not here; `runs`; `rescored`.

    Raises:
        UserError: no such folder, or with `write_index` a damaged run.

    Examples:
        >>> import cissod_bench as cb
        >>> packed = cb.pack_submission("runs/soft-teacher", "published/soft-teacher", contact="A. Name <a@name.org>",
        ...                             licence="CC0-1.0", hardware="2 CPU cores")
        >>> found = cb.check_results("published", write_index=True, annotations=["splits/shapes/data/val.json"])
        >>> found.problems
        []
    """
    from cissod_bench.results import published
    from cissod_bench.results.check_results import Package, check_results
    from cissod_bench.results.known_truth import KnownTruths

    if write_index:
        published.write_index(Path(folder))
    truths = KnownTruths([Path(file) for file in annotations], Path(data_root))
    return check_results(Path(folder), Package(_versions(), _detector_digest), truths)


def _versions() -> dict[str, int]:
    from cissod_bench.methods.registry import METHODS

    return {name: method.version for name, method in METHODS.items()}


def _detector_digest(file: Path) -> str:
    from cissod_bench.training.recipes.detector_file import detector_from_file

    described = detector_from_file(file).file
    assert described is not None
    return described.digest
