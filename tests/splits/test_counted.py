"""What a split counts as labelled is what mmdet's data set hands to the trainer, whatever the annotations hold."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.errors import UserError
from tests.toy import TOY, make_split, toy_data

ODD_BOXES: list[dict[str, Any]] = [
    {"bbox": [5, 5, 0.4, 9]},
    {"bbox": [5, 5, 9, 0.999]},
    {"bbox": [5, 5, 1, 1]},
    {"bbox": [63.5, 5, 9, 9]},
    {"bbox": [64, 5, 9, 9]},
    {"bbox": [-9, 5, 9, 9]},
    {"bbox": [-8.5, 47.5, 9, 9]},
    {"bbox": [5, 5, -9, 9]},
    {"bbox": None},
    {"bbox": []},
    {"bbox": [5, 5, 9, 9], "ignore": 1},
    {"bbox": [5, 5, 9, 9], "ignore": True, "iscrowd": 1},
    {"bbox": [5, 5, 9, 9], "ignore": 0, "iscrowd": None, "area": None},
    {"bbox": [5, 5, 9, 9], "iscrowd": True},
    {"bbox": [5, 5, 9, 9], "area": -81},
    {"bbox": [5, 5, 9, 9], "area": 0},
    {"bbox": [5, 5, 9, 9], "image_id": 10**9},
    {"bbox": [5, 5, 9, 9], "category_id": 77},
]


def odd_data(seed: int) -> dict[str, Any]:
    """Toy data of which every second box is odd in one way or another."""
    content, generator = toy_data(seed), random.Random(seed)
    for box in content["annotations"][::2]:
        box |= generator.choice(ODD_BOXES)
    return content


@pytest.mark.parametrize("seed", range(3))
def test_every_counted_box_is_trained_on(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("mmdet")
    from mmdet.datasets import CocoDataset

    (tmp_path / "toy.json").write_text(json.dumps(odd_data(seed)))
    made = make_split(TOY, tmp_path / "toy.json", tmp_path / "split", seed=seed)
    names = tuple(entry["name"] for entry in made.manifest.classes)
    dataset = CocoDataset(
        ann_file=str(tmp_path / "split" / "labeled.json"),
        data_prefix={"img": ""},
        metainfo={"classes": names},
        filter_cfg={"filter_empty_gt": False},
    )
    trained: Counter[str] = Counter()
    ignored = 0
    for index in range(len(dataset)):
        for instance in dataset.get_data_info(index)["instances"]:
            ignored += instance["ignore_flag"]
            trained[names[instance["bbox_label"]]] += not instance["ignore_flag"]
    counted = {row["name"]: row["labeled_boxes"] for row in made.statistics["classes"]}
    assert counted == {name: trained[name] for name in names}
    assert sum(trained.values()) > 20
    assert made.manifest.counts["labeled_boxes"] == sum(trained.values()) + ignored
    told = {entry["what"] for entry in made.statistics["health"]}
    assert {"box with `ignore`", "box narrower or lower than one pixel"} <= told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iscrowd": 1}, r"all \d+ boxes are crowd regions .* nothing can be learned"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, r"none of the \d+ boxes can be used .* normalised"),
        ({"bbox": None, "segmentation": [[1, 1, 9, 1, 9, 9]]}, r"box missing or not finite: \d+, such as .*polygon"),
        ({"bbox": [0, 0, 0, 0]}, r"box of zero or negative size: \d+"),
        ({"ignore": 1}, r"box with `ignore`: \d+"),
        ({"image_id": 10**9}, r"annotation of an image that the file lacks: \d+.* Ids of annotations"),
        ({"bbox": [640, 480, 20, 20]}, r"box wholly outside its image: \d+"),
    ],
)
def test_boxes_of_which_none_can_be_learned_are_named_as_what_they_are(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = toy_data()
    for box in content["annotations"]:
        box |= change
    (tmp_path / "toy.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"toy\.json: {message}|toy\.json: none of .*{message}"):
        make_split(TOY, tmp_path / "toy.json", tmp_path / "split")
