"""Runs with made-up detections on the validation images of `shapes`, packed as published runs are."""

from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.evaluation import evaluate
from cissod_bench.evaluation.inputs import GroundTruth
from cissod_bench.io import write_json
from cissod_bench.results.external import write_run
from cissod_bench.results.submission import Submission, pack
from cissod_bench.tasks.registry import TASKS
from tests.leaderboard.runs import make_record

MINORITY = TASKS["shapes"].minority
STATED = Submission(contact="A. Name <a@name.org>", licence="CC-BY-4.0", hardware="2 CPU cores", notes='two\nlines "x"')


def make_run(folder: Path, truth: GroundTruth, *, seed: int = 0, **key: Any) -> Path:
    """A run folder: every second object is found, with a score and a shift that depend on the seed."""
    random = np.random.default_rng(seed)
    shifts, scores = random.normal(0, 2, (len(truth.boxes), 4)), random.random(len(truth.boxes))
    found = [
        {
            "image_id": int(truth.box_image[i]),
            "category_id": int(truth.box_class[i]),
            "bbox": np.abs(truth.boxes[i] + shifts[i]).tolist(),
            "score": float(scores[i]),
        }
        for i in range(0, len(truth.boxes), 2)
    ]
    return write(folder, truth, found, seed=seed, **key)


def write(folder: Path, truth: GroundTruth, found: list[dict[str, Any]], *, seed: int = 0, **key: Any) -> Path:
    predictions = folder.parent / f"{folder.name}.json"
    write_json(predictions, found)
    majority = [name for name in truth.class_names if name not in MINORITY]
    evaluation = evaluate(truth, predictions, {"maj": majority, "min": MINORITY})
    write_run(folder, make_record(train_seed=seed, **key).key, evaluation, predictions, split=str(folder / "split"))
    return folder


def publish(root: Path, name: str, run: Path, stated: Submission = STATED) -> Path:
    """The run packed under a name in `root / results`."""
    return pack(run, root / "results" / name, stated).folder
