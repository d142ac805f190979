"""Splits that ignore the minority objects of D_m: in training they are neither objects, nor background, nor counted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from cissod_bench.splits.folder import load_split
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.tasks.registry import TASKS, get_task
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job, labeled_boxes
from cissod_bench.training.runner import run_job
from tests.tiny import TASK_FILE, tiny_job

RULES = ("drop", "ignore", "keep")


@pytest.fixture(scope="module")
def jobs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """A job on a split of each rule."""
    folder = tmp_path_factory.mktemp("rules")
    found = {}
    text = TASK_FILE.format(minority=list(TASKS["shapes"].minority))
    text = text.replace('= "train', f'= "{tiny}/train').replace('= "val', f'= "{tiny}/val')
    for rule in RULES:
        file = folder / f"{rule}.toml"
        file.write_text(text.replace("floor = 2", f'floor = 2\nminority_objects = "{rule}"'))
        make_splits(get_task(str(file)), tiny / "train.json", [(folder / rule, Variant(seed=0))])
        changes: dict[str, Any] = {"task": str(file), "split": folder / rule, "method": "gbs"}
        found[rule] = tiny_job(tiny, folder / f"run-{rule}", **changes)
    return found


def objects(job: Job) -> dict[int, list[int]]:
    """Labels of the objects of each labelled image, as RFS and CrS count them."""
    config = build_config(job).train_dataloader.dataset.datasets[0]
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(config)
    found = range(len(dataset))
    return {dataset.get_data_info(index)["img_id"]: sorted(dataset.get_cat_ids(index)) for index in found}


def test_ignored_objects_count_as_little_as_dropped_ones(jobs: dict[str, Job]) -> None:
    dropped, ignored, kept = (objects(jobs[rule]) for rule in RULES)
    assert ignored == dropped
    assert kept.keys() == dropped.keys()
    assert kept != dropped
    boxes = {rule: labeled_boxes(load_split(jobs[rule].split.folder)) for rule in RULES}
    assert boxes["ignore"] == boxes["drop"]
    assert sum(boxes["keep"]) > sum(boxes["drop"])


@pytest.mark.parametrize(("rule", "expected"), [("drop", 0), ("ignore", -1)])
def test_ignored_objects_are_not_background(jobs: dict[str, Job], rule: str, expected: int) -> None:
    """mmdet's assigners: 0 is background, -1 is neither."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(build_config(jobs[rule]).model.detector)
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0, 40, 40]]), labels=torch.tensor([0]))
    hidden = InstanceData(bboxes=torch.tensor([[60.0, 60, 100, 100]]), labels=torch.tensor([11]))
    boxes = InstanceData(priors=torch.tensor([[0.0, 0, 40, 40], [62.0, 62, 98, 98], [110.0, 0, 125, 15]]))
    for assigner in (detector.rpn_head.assigner, detector.roi_head.bbox_assigner):
        given = hidden if rule == "ignore" else None
        assert assigner.assign(boxes, truth, given).gt_inds.tolist() == [1, expected, 0]


def test_a_run_on_such_a_split(jobs: dict[str, Job]) -> None:
    job = jobs["ignore"]
    labeled = json.loads(job.split.labeled_file.read_text())
    assert any(box["iscrowd"] for box in labeled["annotations"])
    assert run_job(job).metrics
