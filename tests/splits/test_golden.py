"""The real data: parity with the paper's release (splits.md), and the digests that never change unasked."""

import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import read_coco
from cissod_bench.splits.make import write_plan
from cissod_bench.splits.plan import Plan, Variant, minority_labels, plan_split
from cissod_bench.splits.select import SelectionKey, pairs_of, select_labeled
from cissod_bench.splits.sources import Sources, read_sources
from cissod_bench.tasks.records import TASKS, SelectionRule

DATA = Path(__file__).parents[3] / "shared" / "data"


def real_file(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="module")
def coco() -> Columns:
    return read_coco(real_file("coco2017/instances_train2017_boxes.json.xz"))[0]


def plan(columns: Columns, task: str, seed: int = 0) -> Plan:
    return plan_split(TASKS[task], Sources(columns, np.zeros(columns.num_images, np.bool_)), Variant(seed))


@pytest.mark.parametrize(
    ("task", "candidates", "drawn", "labeled", "digest"),
    [
        (
            "coco-split1",
            98_459,
            9_846,
            (10_000, 10_400),
            "1d207ab81ce30661ddf0647a6979cb866c52a809d5963d55360e997eed268cee",
        ),
        (
            "coco-split2",
            100_941,
            10_094,
            (10_200, 10_320),
            "f3ff290d1bb5bad194471610f140117a4ebfda127a7e7e8da763754ecc641855",
        ),
    ],
)
def test_coco_splits(
    coco: Columns, tmp_path: Path, task: str, candidates: int, drawn: int, labeled: tuple[int, int], digest: str
) -> None:
    made = plan(coco, task)
    counts = made.record.counts
    assert (counts["majority_candidates"], counts["majority_drawn"]) == (candidates, drawn)
    assert labeled[0] <= counts["labeled_images"] <= labeled[1]
    assert counts["labeled_images"] + counts["unlabeled_images"] == 118_287
    rows = {row["name"]: row for row in made.statistics["classes"]}
    minority = [row for row in rows.values() if row["group"] == "min"]
    assert min(row["labeled_boxes"] for row in minority) >= 10
    assert made.statistics["unmet_floors"] == {}
    if task == "coco-split1":
        assert 150 <= rows["person"]["labeled_images"] <= 260  # the release: 170
        assert min(row["labeled_images"] for row in minority) >= 2
        assert {rows["toaster"]["labeled_images"], rows["hair drier"]["labeled_images"]} <= set(range(10, 45))
    assert write_plan(tmp_path, made, []).digest == digest


def test_stratification_brings_every_class_near_its_share(coco: Columns) -> None:
    """Labelled images of each majority class: at random 5 %, stratified 2 % beside a tenth of all of them."""
    use = np.ones(coco.num_boxes, np.bool_)
    holding = {(image, label) for image, label in zip(coco.box_image.tolist(), coco.box_label.tolist(), strict=True)}
    total = Counter(label for _, label in holding)
    pairs = pairs_of(coco, use)
    minority = minority_labels(TASKS["coco-split1"], coco, pairs)
    deviation = {}
    for stratify in (False, True):
        how = SelectionRule(fraction=0.1, floor=0, stratify=stratify)
        everything = np.ones(coco.num_images, np.bool_)
        drawn = select_labeled(pairs, coco.image_ids, everything, minority, how, SelectionKey(1, "any", 0))
        taken = set(drawn.majority.tolist())
        labeled = Counter(label for image, label in holding if image in taken)
        shares = [labeled[label] / total[label] / 0.1 for label in np.flatnonzero(~minority).tolist()]
        deviation[stratify] = float(np.mean([abs(share - 1) for share in shares]))
    assert deviation[True] < 0.025
    assert deviation[True] < 0.5 * deviation[False]


def test_lvis_covers_every_class() -> None:
    path = real_file("lvis/lvis_v0.5_train_pairs_semisynthetic_boxes.json.xz")
    columns = read_coco(path, file_names="coco_url")[0]
    made = plan(columns, "lvis")
    content = json.loads(lzma.decompress(path.read_bytes()))
    images = set(made.ids["majority"].tolist())
    count = Counter(
        category
        for category, image in {(a["category_id"], a["image_id"]) for a in content["annotations"]}
        if image in images
    )
    assert set(count) == {category["id"] for category in content["categories"]}  # 1,230 classes, 102 with one image
    assert abs(len(images) / (0.1 * 56_740) - 1) <= 0.001
    names = {category["id"]: category["name"] for category in content["categories"]}
    for group, lowest, highest in (("r", 1, 10), ("c", 11, 100), ("f", 101, 10**6)):
        assert set(made.record.groups[group]) == {names[key] for key, n in count.items() if lowest <= n <= highest}


def test_coco_to_objects365(coco: Columns) -> None:
    path = real_file("objects365/o365_sample1000_coco.json")
    task = TASKS["coco-o365"]
    cached: dict[str, Any] = {"coco.json": (coco, None)}
    sources, _ = read_sources(task, path, Path("coco.json"), lambda file: cached.get(file.name) or read_coco(file))
    made = plan_split(task, sources, Variant())
    groups = made.record.groups
    assert (len(groups["maj"]), len(groups["min"])) == (78, 287)
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    total: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    taken = set(made.ids["minority"].tolist())
    seen = set()
    for box in sorted(content["annotations"], key=lambda box: int(box["id"])):
        key = (box["image_id"], box["category_id"], *box["bbox"])
        if box["iscrowd"] or key in seen:
            continue
        seen.add(key)
        total[names[box["category_id"]]] += 1
        drawn[names[box["category_id"]]] += box["image_id"] in taken
    for name in groups["min"]:
        assert drawn[name] >= min(10, total[name])
    assert made.statistics["unmet_floors"] == {name: total[name] for name in groups["min"] if total[name] < 10}
    # All of COCO that holds a mapped class is D_m, the rest of Objects365 is D_u.
    assert len(made.ids["majority"]) == len(np.unique(coco.box_image[coco.box_label != 32]))  # 32: sports ball
    assert len(taken) + len(made.ids["unlabeled"]) == 1_000
    assert not set(made.ids["majority"].tolist()) & set(range(1, 1_001))
    # The faults of both data sets are told, and the boxes of sports ball, which Objects365 has not.
    unmapped = [row for row in made.statistics["health"] if "without counterpart" in row["what"]]
    assert [(row["boxes"], row["data"]) for row in unmapped] == [(int((coco.box_label == 32).sum()), "coco")]
    # The original data is Objects365 alone (paper Fig. 4 b).
    people = [row for row in made.statistics["classes"] if row["name"] == "Person"]
    assert people[0]["train_boxes"] == total["Person"] < people[0]["labeled_boxes"]


def test_groups_and_floor_follow_the_options(coco: Columns) -> None:
    from dataclasses import replace

    task = replace(TASKS["coco-split2"], selection=SelectionRule(count=500, floor=3))
    counts = plan_split(task, Sources(coco, np.zeros(coco.num_images, np.bool_)), Variant(4)).record.counts
    assert counts["majority_drawn"] == 500
    assert counts["minority_images"] < 120
