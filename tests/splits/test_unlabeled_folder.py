"""Unlabelled images in folders: which of them join D_u, and what is refused."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.splits import unlabeled_folder
from cissod_bench.splits.folder import load_split
from cissod_bench.splits.make import Made, make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.splits.verify import verify_split
from cissod_bench.ssod.hooks.diagnostics import DiagnosticsHook
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


def write_image(path: Path, seed: int, size: tuple[int, int] = (128, 128)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tiny: Path, tmp_path: Path) -> Path:
    """The tiny data with a folder `more`: five new images, two copies of others, and files that are no images."""
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("split"))
    for number in range(4):
        write_image(folder / "more" / f"{'b' if number % 2 else 'a'}" / f"{number}.jpg", number, (120 + number, 100))
    write_image(folder / "more" / "new.PNG", 9)
    shutil.copy(next((folder / "train").iterdir()), folder / "more" / "copy.png")
    shutil.copy(next((folder / "val").iterdir()), folder / "more" / "another.png")
    (folder / "more" / "notes.txt").write_text("no image")
    (folder / "more" / "._new.PNG").write_bytes(b"what macOS leaves behind")
    return folder


def split_of(data: Path, places: str | list[str] = "more", *, fraction: float = 0.3, seed: int = 0) -> Made:
    """Make the split of the data in `data/split` with these folders of unlabelled images."""
    text = (data / "task.toml").read_text().replace("fraction = 0.3", f"fraction = {fraction}")
    (data / "folder.toml").write_text(text.replace("[groups]", f"unlabeled_images = {json.dumps(places)}\n[groups]"))
    task = get_task(str(data / "folder.toml"))
    return make_splits(task, data / "train.json", [(data / "split", Variant(seed))], force=True)[0]


def unlabeled_of(made: Made) -> dict[str, tuple[int, int, int]]:
    """File name -> id, width and height of the images of D_u."""
    images = json.loads((made.folder / "unlabeled.json").read_text())["images"]
    return {image["file_name"]: (image["id"], image["width"], image["height"]) for image in images}


def test_every_new_image_joins_d_u_and_copies_are_left_out(data: Path) -> None:
    made = split_of(data)
    found = unlabeled_of(made)
    new = ["../more/a/0.jpg", "../more/a/2.jpg", "../more/b/1.jpg", "../more/b/3.jpg", "../more/new.PNG"]
    assert [name for name in found if name.startswith("..")] == new
    top = max(image["id"] for image in json.loads((data / "train.json").read_text())["images"])
    assert [found[name][0] for name in new] == list(range(top + 1, top + 6))
    assert [found[name][1:] for name in new] == [(120, 100), (122, 100), (121, 100), (123, 100), (128, 128)]
    counts, source = made.manifest.counts, made.manifest.source
    assert (source["folder_images"], source["folder_left_out"]) == (5, 2)
    assert counts["unlabeled_images"] == len(found) == len(load_split(made.folder).unlabeled_ids)
    assert counts["train_images"] == 40 + 5
    checks = verify_split(made.folder, images=data / "train", annotations=read_columns(data / "train.json"))
    assert [check for check in checks if check.problem] == []


def test_a_fraction_of_one_keeps_every_label(data: Path) -> None:
    made = split_of(data, fraction=1)
    given = json.loads((data / "train.json").read_text())
    labeled = json.loads((made.folder / "labeled.json").read_text())

    def boxes(content: dict[str, Any]) -> list[str]:
        return sorted(
            json.dumps([box["image_id"], box["category_id"], *map(float, box["bbox"])])
            for box in content["annotations"]
        )

    assert boxes(labeled) == boxes(given)
    assert {image["id"] for image in labeled["images"]} == {box["image_id"] for box in given["annotations"]}
    minority = set(made.manifest.groups["min"])
    rare = {entry["id"] for entry in given["categories"] if entry["name"] in minority}
    expected = {box["image_id"] for box in given["annotations"] if box["category_id"] in rare}
    assert set(load_split(made.folder).minority_ids.tolist()) == expected


def test_the_digest_covers_the_folder_and_does_not_depend_on_where_it_is(data: Path, tmp_path: Path) -> None:
    first = split_of(data).manifest.digest
    assert split_of(data).manifest.digest == first
    shutil.copytree(data, tmp_path / "elsewhere")
    assert split_of(tmp_path / "elsewhere").manifest.digest == first
    assert split_of(data, ["more/*.PNG", "more/?", "more/a"]).manifest.digest != split_of(data, "more").manifest.digest
    with (data / "more" / "new.PNG").open("ab") as file:
        file.write(b"one more byte")
    assert split_of(data).manifest.digest != first


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ("more/*.PNG", {"../more/new.PNG"}),
        (["more/a", "more/b/1.*"], {"../more/a/0.jpg", "../more/a/2.jpg", "../more/b/1.jpg"}),
        (["more/a", "more/a", "more/**/0.jpg"], {"../more/a/0.jpg", "../more/a/2.jpg"}),
        ("more/?", {"../more/a/0.jpg", "../more/a/2.jpg", "../more/b/1.jpg", "../more/b/3.jpg"}),
    ],
)
def test_folders_and_patterns(places: str | list[str], names: set[str], data: Path) -> None:
    assert {name for name in unlabeled_of(split_of(data, places)) if name.startswith("..")} == names


def test_a_folder_that_holds_the_training_images_gives_the_others(data: Path) -> None:
    write_image(data / "train" / "new.png", 5)
    made = split_of(data, "train")
    assert "new.png" in unlabeled_of(made)
    assert (made.manifest.source["folder_images"], made.manifest.source["folder_left_out"]) == (1, 40)


def test_what_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "empty").mkdir()
    (data / "bad").mkdir()
    shutil.copy(data / "more" / "new.PNG", data / "bad" / "whole.png")
    (data / "bad" / "one.jpg").write_bytes(b"not an image")
    os.mkfifo(data / "bad" / "two.jpg")
    for places, message in (
        ("nowhere", r"there is no folder .*nowhere"),
        ("empty", r"empty has no image \(.bmp, "),
        ("more/*.gif", r"more/\*.gif has no image"),
        ("train", r"all 40 images there are training or validation images"),
        ("bad", r"2 of 3 images cannot be read, such as .*one.jpg"),
    ):
        with pytest.raises(UserError, match=message):
            split_of(data, places)
    monkeypatch.setattr(unlabeled_folder, "MOST", 5)
    with pytest.raises(UserError, match=r"more has 5 files or more. Take a part of them with a pattern"):
        split_of(data)
    (data / "val.json").unlink()
    with pytest.raises(UserError, match=r"val.json: the validation annotations are not there"):
        split_of(data, "more/a")
    for wrong in ([], [""], "", 3):
        with pytest.raises(UserError, match="unlabeled_images"):
            split_of(data, wrong)  # type: ignore[arg-type]


def test_a_name_that_is_no_text_is_refused(data: Path) -> None:
    source = data / "more" / "new.PNG"
    os.rename(source, os.fsencode(data / "more") + b"/\xff.png")  # noqa: PTH104  (bytes)
    with pytest.raises(UserError, match="is not UTF-8"):
        split_of(data)


def test_progress_is_reported(data: Path) -> None:
    split_of(data)
    seen: list[tuple[int, int]] = []
    task = get_task(str(data / "folder.toml"))
    make_splits(task, data / "train.json", [(data / "other", Variant(1))], progress=lambda *at: seen.append(at))
    assert seen[-1] == (7, 7)


def test_a_run_trains_on_them(data: Path, tmp_path: Path) -> None:
    made = split_of(data)
    job = tiny_job(data, tmp_path / "run", task=str(data / "folder.toml"), split=made.folder)
    assert run_job(job).key.split_digest == made.manifest.digest


def test_pseudo_labels_on_images_without_annotations_are_not_judged(data: Path) -> None:
    """What such an image holds is not known; an annotated image without boxes holds nothing."""
    known = json.loads((data / "train.json").read_text())["images"][0]["id"]
    hook = DiagnosticsHook(1, str(data), ("disc",), {"all": ("disc",)}, hidden=str(data / "train.json"))
    found = InstanceData(bboxes=torch.tensor([[0.0, 0, 1, 1]]), labels=torch.tensor([0]), scores=torch.tensor([0.99]))
    view = SimpleNamespace(
        samples=[SimpleNamespace(img_id=image) for image in (known, 10**6)],
        pseudo=[found, found],
        thresholds=torch.tensor([0.9]),
    )
    model = SimpleNamespace(view=view, loss_cls=None, refinement=None)
    scalars = SimpleNamespace(update_scalar=lambda *_: None)
    hook.after_train_iter(SimpleNamespace(model=model, iter=0, max_iters=1, hooks=(), message_hub=scalars), 0)
    line = json.loads((data / "observables.jsonl").read_text())
    assert sum(line["pseudo_labels"]["given"]) == 1
