"""The ground truth of a published record: made anew for the embedded tasks, else looked for by its digest."""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cissod_bench.evaluation.inputs import GroundTruth, read_ground_truth
from cissod_bench.results.record import Result
from cissod_bench.synthetic.shapes import generate
from cissod_bench.tasks.registry import TASKS


class KnownTruths:
    """Ground truths at hand.

    Args:
        files: annotation files, each of any task.
        data_root: folder that the paths of the tasks are relative to.
    """

    def __init__(self, files: Sequence[Path] = (), data_root: Path = Path("data")) -> None:
        self._files, self._data_root = tuple(files), data_root

    def find(self, record: Result) -> GroundTruth | None:
        """The ground truth that a record was scored against; None where it is not on this machine.

        Raises:
            UserError: a file that cannot be read as annotations.
        """
        for file, lvis in self._candidates(record):
            truth, digest = _read(file, lvis)
            if digest == record.annotations_digest:
                return truth
        return None

    def _candidates(self, record: Result) -> Iterator[tuple[Path, bool]]:
        lvis = record.key.rules == "lvis"
        task = TASKS.get(record.key.task)
        if task is not None and task.files is None:
            yield _embedded(task.name), lvis
        elif task is not None and task.files is not None:
            file = self._data_root / task.files.val_annotations
            yield from ((path, lvis) for path in (file, file.with_name(f"{file.name}.gz")) if path.is_file())
        yield from ((file, lvis) for file in self._files)


@functools.cache
def _read(file: Path, lvis: bool) -> tuple[GroundTruth, str]:
    truth = read_ground_truth(file, lvis=lvis)
    return truth, truth.digest()


@functools.cache
def _embedded(task: str) -> Path:
    """The validation annotations of an embedded task, in a folder that is removed when the process ends."""
    folder = Path(_temporary().name) / task
    generate(task, folder, 0, train_images=0)
    return folder / "val.json"


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="cissod-bench-")
