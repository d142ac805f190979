"""Detection in batches of one size finds what it finds image by image, in one process and in several."""

import json
import shutil
from pathlib import Path
from typing import Any

import mmengine.evaluator.metric as mmengine_metric
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from cissod_bench.coco.names import clean_name
from cissod_bench.ssod.data.one_size import OneSizeBatches, batches_of_one_size
from cissod_bench.ssod.metric import GroupAP
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


def test_batches_hold_images_of_one_size_and_each_image_once() -> None:
    sizes = np.array([[4, 3], [3, 4], [4, 3], [4, 3], [3, 4], [5, 5]])
    assert batches_of_one_size(sizes, 2) == [[1, 4], [0, 2], [3], [5]]
    assert batches_of_one_size(np.full((5, 2), 7), 3) == [[0, 1, 2], [3, 4]]


class Images:
    """Images 0 to 6 as mmdet's data sets describe them, and those of one process."""

    dataset: "Images"

    def __init__(self, mine: list[int]) -> None:
        self.dataset, self.mine = self, mine

    def __iter__(self) -> Any:
        return iter(self.mine)

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": 8 + index % 2, "height": 6}


def test_a_process_takes_its_own_images() -> None:
    batches = OneSizeBatches(Images([6, 3, 4, 1, 0]), 2)  # type: ignore[arg-type]
    assert [*batches] == [[6, 4], [0], [3, 1]]
    assert len(batches) == 3


@pytest.fixture
def mixed(tiny: Path, tmp_path: Path) -> Path:
    """The tiny task with three of its six validation images cropped."""
    folder = tmp_path / "mixed"
    shutil.copytree(tiny, folder)
    file = folder / "val.json"
    content = json.loads(file.read_text())
    for entry in content["images"][::2]:
        entry["width"] -= 32
        path = folder / "val" / entry["file_name"]
        with Image.open(path) as image:
            image.crop((0, 0, entry["width"], entry["height"])).save(path)
    file.write_text(json.dumps(content))
    return folder


def test_a_run_on_images_of_several_sizes_detects_as_it_does_one_by_one(mixed: Path, tmp_path: Path) -> None:
    found = []
    for size in (20, 1):
        run_job(tiny_job(mixed, tmp_path / str(size), overrides={"val_dataloader.batch_size": size}))
        found.append(json.loads((tmp_path / str(size) / "detections.json").read_text()))
    together, alone = ({key(each) for each in detections} for detections in found)
    assert len(together & alone) > 0.98 * max(len(together), len(alone)) > 100
    assert [each["image_id"] for each in found[0]] == sorted(each["image_id"] for each in found[0])


def key(detection: dict[str, Any]) -> tuple[int, ...]:
    """A detection up to rounding."""
    place = (round(value) for value in detection["bbox"])
    return detection["image_id"], detection["category_id"], round(1000 * detection["score"]), *place


@pytest.mark.parametrize("orders", [([0, 2, 4, 6], [1, 3, 5, 0]), ([6, 0, 4, 2], [0, 5, 1, 3])])
def test_every_image_of_two_processes_is_scored_once(
    orders: tuple[list[int], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven images on two processes: one of them is given out twice, and mmengine cuts off whatever comes last."""
    annotations = tmp_path / "val.json"
    content = {
        "images": [{"id": image, "width": 9, "height": 9, "file_name": f"{image}.png"} for image in range(7)],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1 + image, "image_id": image, "category_id": 3, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
            for image in range(7)
        ],
    }
    annotations.write_text(json.dumps(content))
    groups = {"all": [clean_name("cat")]}
    scorers = [GroupAP(str(annotations), ["cat"], groups, "hotcoco", 100, str(tmp_path)) for _ in orders]
    for scorer, order in zip(scorers, orders, strict=True):
        for image in order:
            boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0]])
            found = InstanceData(bboxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([0.5 + image / 100]))
            scorer.process(None, [{"img_id": image, "pred_instances": found}])

    def as_mmengine_does(_: Any, size: int, *__: Any) -> list[Any]:
        rows = zip(*(scorer.results for scorer in scorers), strict=True)
        return [result for row in rows for result in row][:size]

    monkeypatch.setattr(mmengine_metric, "collect_results", as_mmengine_does)
    assert scorers[0].evaluate(7)["all/AP"] == pytest.approx(1.0)
    detections = json.loads((tmp_path / "detections.json").read_text())
    assert [(each["image_id"], each["score"]) for each in detections] == [
        (image, pytest.approx(0.5 + image / 100)) for image in range(7)
    ]
