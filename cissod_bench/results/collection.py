"""The records below some folders, as objects and as a pandas table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cissod_bench.results.record import Rejected, Result, load_results

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Results:
    """Records that were found.

    Attributes:
        paths: their files, in order.
        records: the records of these files.
        rejected: files that were left out, with the reason.
    """

    paths: tuple[Path, ...]
    records: tuple[Result, ...]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.records)

    def to_frame(self) -> "DataFrame":
        """One row for each run and class group: `path`, the fields of the run's key, `group`, and the metrics.

        Metrics are in [0, 1], and NaN where the group has no ground truth of that size.
        """
        import pandas

        rows = [
            {"path": str(path.parent), **msgspec.structs.asdict(record.key), "group": group, **metrics}
            for path, record in zip(self.paths, self.records, strict=True)
            for group, metrics in record.metrics.items()
        ]
        metrics = list(next(iter(self.records[0].metrics.values())))
        return pandas.DataFrame(rows).astype(dict.fromkeys(metrics, float))


def collect_results(folders: Sequence[Path]) -> Results:
    """All records below some folders.

    Raises:
        UserError: a folder that does not exist, or no usable record in any of them.
    """
    found, rejected = load_results(folders)
    return Results(tuple(path for path, _ in found), tuple(record for _, record in found), tuple(rejected))
