"""The files of runs that charts are made from: each read once; one that is damaged is left out and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cissod_bench.errors import UserError
from cissod_bench.leaderboard.comparable import Run
from cissod_bench.results.curves import Curve, read_curves
from cissod_bench.results.diagnostics import Observables, read_observables
from cissod_bench.results.record import ClassScores, Rejected, class_scores
from cissod_bench.splits.folder import STATISTICS, existing_digest, statistics_of

Content = TypeVar("Content")

OFFICIAL = "official-"
"""In front of LVIS's own groups, beside those that the paper counts in D_l."""


def is_part(group: str) -> bool:
    """Whether a group is one of those that divide the classes of a task: neither all of them nor LVIS's own."""
    return group != "all" and not group.startswith(OFFICIAL)


class RunFiles:
    """Reads logs and statistics, and remembers what it could not read.

    Attributes:
        left_out: files that are damaged, with the reason.
    """

    def __init__(self) -> None:
        self.left_out: list[Rejected] = []
        self._read: dict[tuple[str, Path], Any] = {}

    def curves(self, folder: Path) -> dict[str, Curve]:
        """`read_curves` of a run folder; empty where the log is damaged."""
        return self._once("curves", folder, lambda: read_curves(folder), {})

    def observables(self, folder: Path, classes: int) -> Observables | None:
        """`read_observables` of a run folder; None where the log is damaged."""
        return self._once(f"observables of {classes}", folder, lambda: read_observables(folder, classes), None)

    def class_ap(self, run: Run) -> dict[str, float]:
        """Class name -> AP, without classes that have no ground truth; empty where a run has no usable arrays."""
        scores = self._scores(run)
        return {} if scores is None else scores.ap

    def class_groups(self, run: Run) -> dict[str, str]:
        """Class name in label order -> its group, none of the official ones; empty where a run has no usable arrays."""
        scores = self._scores(run)
        if scores is None:
            return {}
        group_of = {name: group for group, names in scores.groups.items() if is_part(group) for name in names}
        return {name: group_of.get(name, "") for name in scores.names}

    def _scores(self, run: Run) -> ClassScores | None:
        return self._once("arrays", run.path.parent, lambda: class_scores(run.path.parent, run.result), None)

    def statistics(self, split: Path, digest: str) -> dict[str, Any] | None:
        """`statistics_of` a split; None where there is none, it is damaged, or another split lies there now."""
        if not (split / STATISTICS).exists():
            return None
        return self._once(f"statistics of {digest}", split, lambda: _statistics(split, digest), None)

    def _once(self, what: str, folder: Path, read: Callable[[], Content], instead: Content) -> Content:
        key = (what, folder)
        if key not in self._read:
            try:
                self._read[key] = read()
            except UserError as error:
                self._read[key] = instead
                self.left_out.append(Rejected(folder, str(error)))
        found: Content = self._read[key]
        return found


def _statistics(split: Path, digest: str) -> dict[str, Any]:
    there = existing_digest(split)
    if there not in (None, digest):
        raise UserError(
            f"{split}: another split lies there now ({there[:12]}, the runs were trained on {digest[:12]}), so charts "
            "show nothing of it. Make each split in a folder of its own."
        )
    return statistics_of(split)
