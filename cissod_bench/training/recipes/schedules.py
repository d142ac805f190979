"""Schedules: how long a run trains. All other optimisation settings belong to the detector (`detectors.py`)."""

from dataclasses import dataclass

from cissod_bench.errors import unknown_name
from cissod_bench.tasks.registry import Task
from cissod_bench.training.recipes.scaling import scaled_length


@dataclass(frozen=True)
class Schedule:
    """A schedule preset.

    Attributes:
        name: name on the command line.
        title: one line for lists.
        fraction: fraction of the task's full length; None for a fixed number of iterations.
        iterations: fixed number of iterations, whatever the batch; None for a fraction.
        evaluations: number of evaluations, evenly spaced; the last one is the result.
    """

    name: str
    title: str
    fraction: float | None = None
    iterations: int | None = None
    evaluations: int = 1

    def length(self, task: Task, scale: float = 1.0) -> int:
        """Number of iterations on a task, with `scale` times as many images per step as in the recipe."""
        if self.iterations is not None:
            return self.iterations
        assert self.fraction is not None
        return scaled_length(max(1, round(self.fraction * task.iterations)), scale)


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "paper",
            "the task's full length, see `list tasks` (paper sec. 4.2: 180k for COCO and LVIS, 360k for Objects365)",
            fraction=1.0,
            evaluations=10,
        ),
        Schedule(
            "short", "a tenth of the full length, for development; marked as shortened in every table", fraction=0.1
        ),
        Schedule("smoke", "three iterations, to check that everything works", iterations=3),
    )
}


def get_schedule(name: str) -> Schedule:
    """The schedule of that name.

    Raises:
        UserError: unknown schedule.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    return SCHEDULES[name]
