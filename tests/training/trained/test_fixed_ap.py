"""AP Fixed of a run by LVIS's rules, against the official library on detections that are chosen one by one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.evaluation.groups import evaluate, load_evaluation
from cissod_bench.evaluation.inputs import Detections
from cissod_bench.launch.here import run_here
from cissod_bench.launch.nodes import Nodes
from cissod_bench.launch.status import Member, RunState, state_of
from cissod_bench.leaderboard.errors import errors_of
from cissod_bench.tasks.records import TASKS
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.job import resolve_job
from cissod_bench.training.recipes import detectors
from cissod_bench.training.spec import RunSpec
from cissod_bench.training.trained import fixed_ap
from cissod_bench.training.trained.predict import load_predictor
from tests.training.test_every_task import TINY, select_split


def naive(entries: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The best of each class, one by one: of equal scores the first."""
    kept: dict[int, list[dict[str, Any]]] = {}
    for entry in sorted(entries, key=lambda entry: -entry["score"]):  # stable
        of_class = kept.setdefault(entry["category_id"], [])
        if len(of_class) < number:
            of_class.append(entry)
    return [entry for of_class in kept.values() for entry in of_class]


@pytest.mark.parametrize("between", [1, 40, 10**6])
def test_dropping_on_the_way_changes_nothing(between: int) -> None:
    rng = np.random.default_rng(0)
    entries = [
        {"image_id": image, "category_id": int(kind), "score": float(score)}
        for image in range(30)
        for kind, score in zip(rng.integers(0, 4, 9), rng.integers(0, 12, 9) / 12, strict=True)
    ]
    parts = []
    for image in range(30):
        here = [entry for entry in entries if entry["image_id"] == image]
        columns = [np.array([entry[name] for entry in here]) for name in ("image_id", "category_id", "score")]
        parts.append(Detections(columns[0], columns[1], np.zeros((len(here), 4)), columns[2]))
    found = fixed_ap.best_detections(parts, 7, between)
    rows = sorted(zip(found.box_image.tolist(), found.box_class.tolist(), found.scores.tolist(), strict=True))
    expected = [(entry["image_id"], entry["category_id"], entry["score"]) for entry in naive(entries, 7)]
    assert rows == sorted(expected)


def test_the_time_is_that_of_sorting_each_detection_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where as many are kept as fit, one more image does not sort all of them again."""
    sorted_out = []
    monkeypatch.setattr(
        fixed_ap, "best_of_each_class", lambda found, number: sorted_out.append(len(found.scores)) or found
    )
    part = Detections(np.zeros(10, np.int64), np.zeros(10, np.int64), np.zeros((10, 4)), np.ones(10))
    fixed_ap.best_detections([part] * 1000, 10**9, 100)  # everything is kept
    assert sum(sorted_out) < 4 * 10_000


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run of two steps on data in LVIS's form, with a detector that finds something everywhere."""
    monkeypatch.setitem(detectors.DETECTORS, "tiny", TINY)
    task = TASKS["lvis"]
    selection = dataclasses.replace(task.selection, fraction=0.5)
    monkeypatch.setitem(TASKS, "lvis", dataclasses.replace(task, selection=selection, group_limits=(1, 2)))
    select_split(get_task("lvis"), tmp_path)
    return RunSpec(
        task="lvis", method="supervised", split=tmp_path / "split", out=tmp_path / "run", data_root=tmp_path,
        detector="tiny", iterations=2, workers=0, threads=1, device="cpu", fixed_ap=True,
    )  # fmt: skip


def test_a_run_measures_it_on_request(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_ap, "PER_CLASS", 5)
    job = resolve_job(spec)
    run_here(job, Nodes(1), progress=False)
    folder = job.folder
    record, found = folder.result(), folder.fixed_ap_metrics()
    assert found is not None
    assert found.keys() == record.metrics.keys()

    predictor = load_predictor(folder.path)
    predictor.detector.roi_head.test_cfg.max_per_img = 10**6
    images = json.loads(folder.validation_images.read_text())["images"]
    base = Path(predictor.config.test_dataloader.dataset.data_prefix["img"])
    entries = []
    for image in images:
        detected = predictor.predict(base / image["file_name"])
        for box, score, label in zip(detected.boxes, detected.scores, detected.labels, strict=True):
            kind = predictor.categories[label]["id"]
            entries.append({"image_id": image["id"], "category_id": kind, "bbox": box.tolist(), "score": float(score)})
    capped = json.loads(folder.detections.read_text())
    assert len(entries) > len(naive(entries, 5))
    arrays = load_evaluation(folder.per_class)
    groups = {name: members for name, members in arrays.groups.items() if not name.startswith("official-")}
    official = evaluate(
        Path(str(record.annotations)), naive(entries, 5), groups, classes=arrays.class_names, evaluator="lvis",
        max_detections=10**6, lvis=True,
    )  # fmt: skip
    assert found == official.metrics()
    assert len(entries) >= len(capped)

    confusion = errors_of(folder.path).confusion
    assert confusion.keys() <= {"f", "c", "r"}, "an object is in one group, not in LVIS's own as well"
    assert any(group.startswith("official-") for group in arrays.groups)

    written = folder.fixed_ap.read_bytes()
    run_here(job, Nodes(1), progress=False)  # finished: shows what is there
    assert folder.fixed_ap.read_bytes() == written

    member = Member("run", folder.path.parent, spec)
    assert state_of(member) == RunState("done")
    folder.fixed_ap.unlink()
    assert state_of(member).state == "waiting", "a sweep measures what is missing"
    last = folder.checkpoints / "iter_2.pth"
    last.rename(tmp_path / "away.pth")
    with pytest.raises(UserError, match=r"no checkpoint|the scores are of that checkpoint"):
        run_here(job, Nodes(1), progress=False)
    assert not folder.fixed_ap.exists()
    (tmp_path / "away.pth").rename(last)

    folder.fixed_ap.write_text("of other weights")
    folder.record.unlink()
    run_here(job, Nodes(1), progress=False)  # evaluates again, and so measures again
    assert folder.fixed_ap.read_bytes() == written


def test_it_is_a_rule_of_lvis() -> None:
    with pytest.raises(UserError, match="AP Fixed is a rule of LVIS; task 'shapes' has COCO's rules"):
        resolve_job(RunSpec(task="shapes", method="gbs", fixed_ap=True, split=Path("nowhere")))
