"""The folder of published runs: where it is, and its index.

`results/` in the repository holds a folder for each run (`submission.py`) and `index.json`. An installed package has a
copy without the detections, which only re-scoring and the bootstrap need.
"""

from pathlib import Path
from typing import Any

import cissod_bench
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file, write_json
from cissod_bench.results.record import RESULT_FILE, load_result
from cissod_bench.results.submission import read_submission

INDEX = "index.json"
SCHEMA_VERSION = 1
"""Of the index."""


def published_folder() -> Path:
    """The published runs that came with this package: those of the wheel, else those of the repository.

    Raises:
        UserError: there are none.
    """
    package = Path(cissod_bench.__file__).parent
    for folder in (package / "published", package.parent / "results"):
        if (folder / INDEX).is_file():
            return folder
    raise UserError("No published results came with this installation. Clone the repository, which has them.")


def published_runs(folder: Path) -> list[Path]:
    """The folders of the published runs, by name.

    Raises:
        UserError: `folder` is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the folder of published runs, such as results/.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def make_index(folder: Path) -> dict[str, Any]:
    """What is published: for each run what it is, its AP by group, its licence, and the digests of its files.

    Args:
        folder: the folder of published runs.

    Raises:
        UserError: a record or a statement is damaged.
    """
    return {"schema_version": SCHEMA_VERSION, "runs": {path.name: _entry(path) for path in published_runs(folder)}}


def write_index(folder: Path) -> Path:
    """Write the index; the same runs give the same bytes.

    Raises:
        UserError: a record or a statement is damaged.
    """
    write_json(folder / INDEX, make_index(folder))
    return folder / INDEX


def _entry(path: Path) -> dict[str, Any]:
    result, submission = load_result(path / RESULT_FILE), read_submission(path)
    key = result.key
    return {
        "task": key.task,
        "protocol": key.protocol,
        "split_digest": key.split_digest,
        "method": key.method,
        "method_version": key.method_version,
        "method_options": key.method_options,
        "detector": key.detector,
        "iterations": key.iterations,
        "seed": key.train_seed,
        "AP": {group: metrics["AP"] for group, metrics in result.metrics.items()},
        "dirty": result.git is not None and result.git.dirty,
        "licence": submission.licence,
        "files": {file.name: sha256_file(file) for file in sorted(path.iterdir()) if file.is_file()},
    }
