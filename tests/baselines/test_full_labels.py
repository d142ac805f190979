"""The reference on all training labels: what it trains on, and where it is refused."""

import json
import shutil
from pathlib import Path

import pytest

from cissod_bench.errors import UserError
from cissod_bench.leaderboard.comparable import REFERENCE
from cissod_bench.leaderboard.gains import SUPERVISED
from cissod_bench.methods.registry import METHODS
from cissod_bench.training.build_config import build_config, export_config
from cissod_bench.training.run_plan import plan_lines
from cissod_bench.training.runner import run_job
from tests.methods.plain import config_of
from tests.tiny import tiny_job


def test_the_leaderboard_knows_both_bounds_by_their_names() -> None:
    without = {name: config_of(method) for name, method in METHODS.items() if not config_of(method).unlabeled}
    assert {name: config.all_labels for name, config in without.items()} == {SUPERVISED: False, REFERENCE: True}


def test_it_trains_on_every_box_of_every_training_image(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", method="full-labels")
    run_job(job)
    assert build_config(job).train_dataloader.dataset.datasets[0].ann_file == str(job.folder.full_labels)
    assert len(build_config(job).train_dataloader.dataset.datasets) == 1
    found, source = json.loads(job.folder.full_labels.read_text()), json.loads((tiny / "train.json").read_text())
    assert [image["id"] for image in found["images"]] == sorted(image["id"] for image in source["images"])

    def boxes(content: dict[str, list[dict[str, object]]]) -> list[tuple[object, ...]]:
        return sorted((box["image_id"], box["category_id"], *box["bbox"]) for box in content["annotations"])  # type: ignore[misc]

    assert boxes(found) == boxes(source)
    assert len(boxes(found)) > job.split.counts["labeled_boxes"]
    assert "labels     of all these images: not semi-supervised" in "\n".join(plan_lines(job))


def test_held_out_images_are_not_among_them(tiny: Path, tmp_path: Path) -> None:
    from cissod_bench.splits.make import make_splits
    from cissod_bench.splits.plan import Variant
    from cissod_bench.tasks.registry import get_task

    data = tmp_path / "data"
    shutil.copytree(tiny, data, ignore=shutil.ignore_patterns("split"))
    text = (data / "task.toml").read_text().replace('val_annotations = "val.json"\nval_images = "val"', "")
    (data / "task.toml").write_text(text.replace("[groups]", "validation_fraction = 0.2\n[groups]"))
    make_splits(get_task(str(data / "task.toml")), data / "train.json", [(data / "split", Variant(seed=0))])
    job = tiny_job(data, tmp_path / "run", method="full-labels")
    job.write_full_labels(tmp_path / "labels.json")
    found = {image["id"] for image in json.loads((tmp_path / "labels.json").read_text())["images"]}
    held_out = {image["id"] for image in json.loads((data / "split" / "val.json").read_text())["images"]}
    assert (len(held_out), len(found), found & held_out) == (8, 32, set())


def test_it_is_refused_without_the_annotations_of_its_split(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "data")
    content = json.loads((tiny / "train.json").read_text())
    content["annotations"][0]["bbox"][2] += 1
    (tmp_path / "data" / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"train.json: not the annotations that .*split was made from. Give those as"):
        run_job(tiny_job(tmp_path / "data", tmp_path / "run", method="full-labels"))
    (tmp_path / "data" / "train.json").unlink()
    with pytest.raises(UserError, match=r"Task tiny needs .*train.json, which does not exist"):
        tiny_job(tmp_path / "data", tmp_path / "run", method="full-labels")
    job = tiny_job(tmp_path / "data", tmp_path / "run", method="full-labels", hidden=tiny / "train.json")
    job.write_full_labels(tmp_path / "labels.json")
    assert tiny_job(tmp_path / "data", tmp_path / "run", method="supervised").batch == (4, 0)


def test_an_exported_configuration_has_its_labels_with_it(tiny: Path, tmp_path: Path) -> None:
    export_config(tiny_job(tiny, tmp_path / "run", method="full-labels"), tmp_path / "x.py")
    labels = tmp_path / "x.full_labels.json"
    assert f"'ann_file': '{labels}'" in (tmp_path / "x.py").read_text()
    assert len(json.loads(labels.read_text())["images"]) == 40
