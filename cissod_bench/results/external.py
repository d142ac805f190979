"""Run folders for detections that another program made, so that they can stand in the leaderboard."""

from pathlib import Path

from cissod_bench.evaluation import Evaluation, save_evaluation
from cissod_bench.io import write_bytes
from cissod_bench.results.record import RESULT_FILE, Key, describe_environment, make_result, write_result


def write_run(folder: Path, key: Key, evaluation: Evaluation, predictions: Path, *, split: str) -> None:
    """Write a run folder: the detections, the per-class arrays and, last, the record.

    Args:
        folder: where; it is made.
        key: what was evaluated.
        evaluation: its scores.
        predictions: the detections, which are copied into the folder.
        split: path of the split folder as the user gave it.
    """
    write_bytes(folder / "detections.json", predictions.read_bytes())
    save_evaluation(folder / "per_class.npz", evaluation)
    result = make_result(
        key,
        evaluation,
        files={"detections": "detections.json", "per_class": "per_class.npz"},
        environment=describe_environment(),
        split=split,
    )
    write_result(folder / RESULT_FILE, result)
