"""`splits verify`: what it finds beside the folder itself: validation images, doubled files, the annotations."""

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import read_coco, read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file
from cissod_bench.splits.folder import STATISTICS, manifest_digest
from cissod_bench.splits.images import pixels_sha256
from cissod_bench.splits.make import make_embedded_split
from cissod_bench.splits.plan import Variant
from cissod_bench.splits.verify import _changed_images, _trained_on, verify_split
from cissod_bench.synthetic import shapes
from cissod_bench.tasks.records import TASKS, SelectionRule
from tests.toy import TOY, make_split, toy_data


def broken(folder: Path, **options: Any) -> list[str]:
    return [check.promise for check in verify_split(folder, **options) if check.problem]


def made(folder: Path, content: dict[str, Any], task: Any = TOY) -> Path:
    (folder / "toy.json").write_text(json.dumps(content))
    make_split(task, folder / "toy.json", folder / "split")
    return folder / "split"


@pytest.mark.parametrize(
    ("trained", "held_out", "same"),
    [
        # COCO: no folder. LVIS: the split has folder and file of the URL, LVIS's own validation file the URL only.
        ({"file_name": "000000000139.jpg"}, {"file_name": "000000000139.jpg"}, True),
        ({"file_name": "val2017/139.jpg"}, {"coco_url": "http://images.cocodataset.org/val2017/139.jpg"}, True),
        ({"file_name": "train2017/139.jpg"}, {"coco_url": "http://images.cocodataset.org/val2017/139.jpg"}, False),
        ({"file_name": "train2017/139.jpg"}, {"file_name": "139.jpg"}, True),
        # Objects365: the split has the place in the unpacked archives.
        ({"file_name": "objects365/train/patch8/a.jpg"}, {"file_name": "images/v1/patch8/a.jpg"}, True),
        ({"file_name": "objects365/train/patch8/a.jpg"}, {"file_name": "images/v1/patch9/a.jpg"}, False),
        ({"file_name": "coco/train2017/139.jpg"}, {"file_name": "images/v1/patch9/139.jpg"}, False),
        ({"file_name": "a.jpg"}, {"file_name": "b.jpg"}, False),
    ],
)
def test_validation_images_are_known_by_every_name(
    tmp_path: Path, trained: dict[str, str], held_out: dict[str, str], same: bool
) -> None:
    def columns(*images: dict[str, Any]) -> Columns:
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return read_columns(tmp_path / "a.json")

    part = columns({"id": 5, **trained}, {"id": 6, "file_name": "other.jpg"})
    assert bool(_trained_on(columns({"id": 5, **held_out}), part)) == same
    assert not _trained_on(columns({"id": 7, **held_out}), part)


def test_one_file_under_two_ids(tmp_path: Path) -> None:
    content = toy_data()
    split = made(tmp_path, content)
    assert broken(split) == []
    labeled = json.loads((split / "labeled.json").read_text())["images"][0]
    unlabeled = json.loads((split / "unlabeled.json").read_text())["images"][0]
    other = next(image for image in content["images"] if image["id"] == unlabeled["id"])
    other["file_name"] = labeled["file_name"]
    # A task file's annotations are refused; those of a built-in task are taken as they are, and verify tells.
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=rf"{labeled['file_name']} is listed under two ids, \d+ and \d+ \(1 such\)"):
        made(tmp_path / "again", content)
    assert broken(made(tmp_path / "again", content, replace(TOY, dataset="coco"))) == ["no image file is in two parts"]


def test_against_the_annotations(tmp_path: Path) -> None:
    content = toy_data()
    # `scarce` has 15 boxes or so: with this floor it is exhausted.
    split = made(tmp_path, content, replace(TOY, selection=SelectionRule(fraction=0.1, floor=60)))
    columns = read_coco(tmp_path / "toy.json")[0]
    statistics = json.loads((split / STATISTICS).read_text())
    assert statistics["unmet_floors"]
    assert broken(split, annotations=columns) == []
    # A floor that is said to be exhausted and is not.
    name = next(iter(statistics["unmet_floors"]))
    statistics["unmet_floors"][name] -= 1
    (split / STATISTICS).write_text(json.dumps(statistics))
    assert broken(split, annotations=columns) == ["classes under their floor have no more boxes in the annotations"]
    # One image more than the split knows of.
    content["images"].append({"id": 10**6, "file_name": "new.jpg", "width": 64, "height": 48})
    (tmp_path / "more.json").write_text(json.dumps(content))
    found = broken(split, annotations=read_coco(tmp_path / "more.json")[0])
    assert found[:2] == [
        "the annotations are those of the split",
        "D_l, D_u and held-out images are all images of the annotations",
    ]


@pytest.mark.parametrize("listed", ["PIXELS.sha256", "SHA256SUMS"])
def test_images_of_an_embedded_task_are_those_that_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    """By their pixels; in a folder of an older version by the bytes of their files."""
    monkeypatch.setattr(shapes, "generate", partial(shapes.generate, train_images=60, val_images=4))
    split = tmp_path / "split"
    make_embedded_split(TASKS["shapes"], split, Variant())
    images = sorted((split / "data").rglob("*.png"))
    if listed == "SHA256SUMS":
        (split / "data" / "PIXELS.sha256").unlink()
        sums = [f"{sha256_file(image)}  {image.relative_to(split)}\n" for image in images]
        (split / "data" / listed).write_text("".join(sums))
        content = json.loads((split / "split.json").read_text())
        del content["outputs"]["data/PIXELS.sha256"]
        content["outputs"][f"data/{listed}"] = sha256_file(split / "data" / listed)
        content["digest"] = manifest_digest(content)
        (split / "split.json").write_text(json.dumps(content))
    assert broken(split) == []
    with Image.open(images[0]) as image:
        image.save(images[0], compress_level=0)
    promise = "the images of data/ are those that were made"
    assert broken(split) == ([] if listed == "PIXELS.sha256" else [promise])
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:200]), Path.unlink):
        damage(images[0])
        assert broken(split) == [promise]


def test_one_changed_pixel_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    before = pixels_sha256(path)
    assert before == hashlib.sha256(b"7 5\n" + pixels.tobytes()).hexdigest()
    pixels[4, 6, 2] ^= 1
    Image.fromarray(pixels).save(path)
    assert pixels_sha256(path) != before


def test_statistics_that_are_gone(tmp_path: Path) -> None:
    split = made(tmp_path, toy_data())
    (split / STATISTICS).unlink()
    with pytest.raises(UserError, match=r"statistics\.json cannot be read"):
        verify_split(split)


def test_validation_on_training_files_under_other_ids_is_found(tmp_path: Path) -> None:
    content = toy_data()
    split = made(tmp_path, content)
    shared = [image | {"id": image["id"] + 10**6} for image in content["images"][:4]]
    own = [{"id": 5, "file_name": "elsewhere/0000.jpg", "width": 64, "height": 48}]
    file = tmp_path / "val.json"
    file.write_text(json.dumps({"images": shared + own, "annotations": [], "categories": content["categories"]}))
    promise = "no validation image is trained on"
    (check,) = (check for check in verify_split(split, validation=file) if check.promise == promise)
    assert check.problem == "4: 0000.jpg, 0001.jpg, 0002.jpg, ..."
    # With both folders, what counts is the files: two of the four are copies.
    for folder, color in (("train", 0), ("val", 90)):
        for number in range(4):
            path = tmp_path / folder / f"{number:04}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 48), (0 if number < 2 else color, number, 9)).save(path)
    found = verify_split(split, images=tmp_path / "train", validation=file, validation_images=tmp_path / "val")
    (check,) = (check for check in found if check.promise == promise)
    assert check.problem == "2: 0000.jpg, 0001.jpg"


@pytest.mark.parametrize("name", ["/dev/zero", "../victim.png", "data/../../victim.png", "data/pipe.png"])
def test_the_list_of_images_names_only_images_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "split"
    made(tmp_path, toy_data())
    (folder / "data").mkdir()
    os.mkfifo(folder / "data" / "pipe.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "victim.png")
    (folder / "data" / "PIXELS.sha256").write_text(f"{pixels_sha256(tmp_path / 'victim.png')}  {name}\n")
    assert _changed_images(folder, "data/PIXELS.sha256", pixels_sha256) == f"1: {name}"


def test_an_image_that_was_added_to_the_data_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (2, 2)).save(tmp_path / "data" / f"{name}.png")
    digest = pixels_sha256(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "PIXELS.sha256").write_text(f"{digest}  data/a.png\n")
    assert _changed_images(tmp_path, "data/PIXELS.sha256", pixels_sha256) == "1: data/b.png"
