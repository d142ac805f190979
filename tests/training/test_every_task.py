"""Every method on some task and every task with two methods: two real steps on data of the task's kind.

Both registries are iterated, so a new task or method is tested without a new test. Images are tiny and random, splits
are selected by the program, and the loop is the run's own with all its hooks, without evaluation.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cissod_bench.coco.objects365 import FROM_COCO, NAMES
from cissod_bench.methods.registry import METHODS
from cissod_bench.splits.make import make_embedded_split, make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.synthetic import shapes
from cissod_bench.tasks.records import TASKS, VOC_CLASSES, Task
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job, resolve_job
from cissod_bench.training.process.isolation import own_instances
from cissod_bench.training.recipes import detectors
from cissod_bench.training.runner import QuietRunner, start_folder
from cissod_bench.training.spec import RunSpec
from tests.tiny import TASK_FILE

COCO = sorted([*FROM_COCO, "sports ball"])
SIDE = 64
FIELDS = {"coco": "file_name", "objects365": "file_name", "lvis": "coco_url", "custom": "file_name"}


def annotate(path: Path, root: Path, where: str, names: list[str], *, rare: set[str], kind: str, number: int) -> None:
    """An annotation file in the form of a data set, and its images; the first images hold the rare classes."""
    generator = np.random.default_rng(0)
    pixels = np.random.default_rng(sum(where.encode()))  # no picture is both trained and validated on
    common = [index for index, name in enumerate(names) if name not in rare]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in range(1, number + 1):
        file = {
            "lvis": f"http://images.cocodataset.org/{where}/{image:012d}.jpg",
            "objects365": f"v1/patch8/{image}.jpg",
        }
        images.append(
            {"id": image, FIELDS[kind]: file.get(kind, f"{image:012d}.jpg"), "width": SIDE, "height": SIDE}
            | ({"neg_category_ids": [1, 2], "not_exhaustive_category_ids": [3]} if kind == "lvis" else {})
        )
        for _ in range(3):
            label = int(generator.integers(len(names)) if image <= number // 3 else generator.choice(common))
            box = [*generator.integers(0, 30, 2).tolist(), *generator.integers(12, 30, 2).tolist()]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label + 1, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0, "segmentation": []}
            )  # fmt: skip
        placed = root / where / (f"patch8/{image}.jpg" if kind == "objects365" else f"{image:012d}.jpg")
        placed.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(placed)
    categories = [{"id": index + 1, "name": name, "frequency": "f"} for index, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


ALL_TASKS = [*TASKS, "own"]


def pairs() -> list[tuple[str, str]]:
    """Tasks with methods, so that each method has a task and each task two methods."""
    methods = list(METHODS)
    number = max(len(methods), 2 * len(ALL_TASKS))
    found = [(ALL_TASKS[index % len(ALL_TASKS)], methods[index % len(methods)]) for index in range(number)]
    return sorted(found, key=lambda pair: ALL_TASKS.index(pair[0]))  # the data of a task is made once


@pytest.fixture(scope="module")
def task_data(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Path]]:
    """What `--task` takes, the data root and the split of a task, selected from data of its kind."""
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "generate", partial(shapes.generate, train_images=40, val_images=4))
        if request.param == "own":
            (root / "task.toml").write_text(TASK_FILE.format(minority=["person", "sheep"]))
        elif TASKS[request.param].frequency_groups:  # so few images that even frequent classes are in few
            task = TASKS[request.param]
            selection = dataclasses.replace(task.selection, fraction=0.5)
            patch.setitem(TASKS, task.name, dataclasses.replace(task, selection=selection, group_limits=(1, 2)))
        name = str(root / "task.toml") if request.param == "own" else request.param
        select_split(get_task(name), root)
        yield name, root, root / "split"


def select_split(task: Task, root: Path) -> None:
    """Data of a task below the data root, and its split."""
    if task.files is None:
        make_embedded_split(task, root / "split", Variant())
        return
    majority = root / task.files.majority_annotations if task.files.majority_annotations else None
    make_splits(task, write_data(task, root), [(root / "split", Variant())], majority_annotations=majority)


def write_data(task: Task, root: Path) -> Path:
    """Annotations and images of a task where it looks for them; the path of the training annotations."""
    assert task.files is not None
    names = {"objects365": list(NAMES), "lvis": [f"thing {index}" for index in range(40)]}.get(task.dataset, COCO)
    rare = set(task.minority) if task.minority else set(names[10:]) - set(VOC_CLASSES)
    place = {
        "train": {"objects365": "objects365/train", "lvis": "coco/train2017"}.get(
            task.dataset, task.files.train_images
        ),
        "val": {"lvis": "coco/val2017"}.get(task.dataset, task.files.val_images),
    }
    files = {"train": root / task.files.train_annotations, "val": root / task.files.val_annotations}
    for part, number in (("train", 30), ("val", 3)):
        where = str(Path(place[part]).name) if task.dataset == "lvis" else place[part]
        base = root / "coco" if task.dataset == "lvis" else root
        annotate(files[part], base, where, names, rare=rare, kind=task.dataset, number=number)
    if task.files.majority_annotations:
        annotate(
            root / task.files.majority_annotations, root, "coco/train2017", COCO, rare=set(), kind="coco", number=20
        )
    return files["train"]


def tiny_model(num_classes: int, max_detections: int) -> dict[str, Any]:
    """The small detector with fewer RoIs, which finds something whatever its scores are."""
    config = detectors.get_detector("r18-small").model(num_classes, 8)
    config["train_cfg"]["rcnn"]["sampler"]["num"] = 16
    config["train_cfg"]["rpn_proposal"] |= {"nms_pre": 50, "max_per_img": 20}
    config["test_cfg"]["rpn"] |= {"nms_pre": 50, "max_per_img": 20}
    config["test_cfg"]["rcnn"]["score_thr"] = 1e-6
    return config


TINY = dataclasses.replace(
    detectors.DETECTORS["r18-small"],
    name="tiny",
    model=tiny_model,
    test_scale=(SIDE, SIDE),
    train_shortest=(SIDE, SIDE),
    per_gpu=(2, 1),
    burn_in=0.0,
    semi={**detectors.DETECTORS["r18-small"].semi, "pseudo_label_initial_score_thr": 1e-6},
)


@pytest.fixture
def tiny_detector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(detectors.DETECTORS, "tiny", TINY)
    with own_instances():  # no visualizer of this test stays behind for a run that starts in the same second
        yield


def job_of(method: str, task_data: tuple[str, Path, Path], out: Path) -> Job:
    task, root, split = task_data
    return resolve_job(
        RunSpec(
            task=task,
            method=method,
            split=split,
            out=out,
            data_root=root,
            detector="tiny",
            iterations=2,
            workers=0,
            threads=1,
            device="cpu",
        )
    )


def test_each_method_and_each_task_is_tried() -> None:
    found = set(pairs())
    assert {method for _, method in found} == set(METHODS)
    methods_of = Counter(task for task, _ in found)
    assert methods_of.keys() == set(ALL_TASKS)
    assert min(methods_of.values()) >= 2


@pytest.mark.parametrize(("task_data", "method"), pairs(), indirect=["task_data"])
def test_two_steps(method: str, task_data: tuple[str, Path, Path], tmp_path: Path, tiny_detector: None) -> None:
    job = job_of(method, task_data, tmp_path / "run")
    config = build_config(job)
    config.train_cfg |= {"val_begin": 3, "val_interval": 3}
    config.default_hooks.checkpoint = None
    start_folder(job, config.pretty_text)
    runner = QuietRunner.from_cfg(config)
    started = [parameter.detach().clone() for parameter in model_of(runner).student.parameters()]
    runner.train()

    model, logged = model_of(runner), runner.message_hub.log_scalars
    unsupervised = ("unsup_loss_cls", "unsup_loss_rpn_cls") if job.method_config.unlabeled else ()
    for name in ("sup_loss_cls", "sup_loss_bbox", "sup_loss_rpn_cls", *unsupervised):
        values = logged[f"train/{name}"].data[0][-2:]
        assert len(values) == 2
        assert np.isfinite(values).all()
        assert (values > 0).all() or name == "sup_loss_bbox"
    moved = [not torch.equal(before, after) for before, after in zip(started, model.student.parameters(), strict=True)]
    assert np.mean(moved) > 0.9
    assert runner.iter == 2
    assert len(job.split.classes) == model.student.roi_head.bbox_head.num_classes
