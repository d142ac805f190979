"""Images of a split on disk: found as the loader finds them, of the size that the annotations say, in one role each."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cissod_bench import api
from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.splits.images import (
    check_sizes,
    filled_sizes,
    image_path,
    missing_images,
    refuse_repeated_files,
    shared_images,
    shown_size,
)
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from tests.toy import TOY, TOY_TASK, toy_data


def saved(path: Path, size: tuple[int, int], orientation: int = 1, color: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (color, 90, 90)).save(path, exif=exif)
    return path


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "toy.json").write_text(json.dumps(content))
    return folder / "toy.json"


@pytest.mark.parametrize("name", ["a.png", "b/c.png", "b/../a.png", "/a.png", "/b/c.png", "x\0y.png"])
def test_an_image_is_looked_for_where_mmdet_reads_it(tmp_path: Path, name: str) -> None:
    import os

    saved(tmp_path / "a.png", (4, 4))
    saved(tmp_path / "b" / "c.png", (4, 4))
    read = os.path.join(tmp_path, name)  # noqa: PTH118  (as `BaseDataset._join_prefix`)
    assert image_path(tmp_path, name) == read
    there = "\0" not in read and Path(read).exists()
    assert missing_images(tmp_path, [name]) == ([] if there else [name])


@pytest.mark.parametrize(("suffix", "orientation", "turned"), [
    ("jpg", 1, False), ("jpg", 3, False), ("jpg", 6, True), ("jpg", 8, True), ("png", 5, True), ("webp", 7, False),
])  # fmt: skip
def test_the_shown_size_is_that_of_opencv(tmp_path: Path, suffix: str, orientation: int, turned: bool) -> None:
    cv2 = pytest.importorskip("cv2")
    path = saved(tmp_path / f"a.{suffix}", (30, 20), orientation)
    height, width = cv2.imread(str(path)).shape[:2]
    assert shown_size(path) == (width, height, turned)


def test_another_size_is_named_with_both(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        saved(tmp_path / name, (30, 20))
    check_sizes(tmp_path, names, [(30, 20), (0, 0), (30, 20)], "a.json")
    with pytest.raises(
        UserError, match=r"a\.json: 2\.jpg is 60 x 40 pixels in the annotations and 30 x 20 in .*\(1 of 3"
    ):
        check_sizes(tmp_path, names, [(30, 20), (30, 20), (60, 40)], "a.json")
    saved(tmp_path / "0.jpg", (30, 20), orientation=6)
    with pytest.raises(UserError, match=r"0\.jpg is 30 x 20 .* and 20 x 30 in .*EXIF"):
        check_sizes(tmp_path, names, [(30, 20)] * 3, "a.json")
    (tmp_path / "0.jpg").write_bytes(b"damaged")  # the loader's rule is another one
    check_sizes(tmp_path, names, [(30, 20)] * 3, "a.json")


def test_a_sample_is_spread_over_all_images(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(50)]
    for name in names:
        saved(tmp_path / name, (30, 20) if name == "0.png" else (20, 30))
    with pytest.raises(UserError, match=r"24\.png is .*\(2 of 3 images looked at differ\)"):
        check_sizes(tmp_path, names, [(30, 20)] * 50, "a.json", sample=3)


def test_sizes_are_read_from_the_files_and_the_boxes_judged_by_them(tmp_path: Path) -> None:
    content = toy_data()
    path = written(tmp_path, content)
    plain = read_columns(path)
    for image in content["images"]:
        saved(tmp_path / "images" / image["file_name"], (64, 48))
        image |= {"width": None, "height": 0}
    del content["images"][5]["width"]
    path = written(tmp_path, content)
    columns = read_columns(path)
    with pytest.raises(
        UserError, match=r"toy\.json: 200 of 200 images have no width and height, the first is image id 3 "
    ):
        filled_sizes(columns, None, path)
    filled = filled_sizes(columns, tmp_path / "images", path)
    assert filled.flags.tolist() == plain.flags.tolist()
    assert set(zip(filled.widths.tolist(), filled.heights.tolist(), strict=True)) == {(64, 48)}
    (tmp_path / "images" / "0007.jpg").write_bytes(b"GIF8")
    with pytest.raises(UserError, match=r"0007\.jpg in .* cannot be read"):
        filled_sizes(columns, tmp_path / "images", path)


def test_a_split_of_images_without_sizes_has_them(tmp_path: Path) -> None:
    content = toy_data()
    for image in content["images"]:
        saved(tmp_path / "images" / image["file_name"], (64, 48))
        del image["width"]
    made = make_splits(TOY, written(tmp_path, content), [(tmp_path / "split", Variant())], images=tmp_path / "images")
    listed = json.loads((made[0].folder / "labeled.json").read_text())["images"]
    assert {(image["width"], image["height"]) for image in listed} == {(64, 48)}


def test_shared_images_are_told_by_place_and_by_content(tmp_path: Path) -> None:
    for folder, color in (("train", 10), ("val", 200), ("copies", 10)):
        saved(tmp_path / folder / "1.png", (8, 8), color=color)
        saved(tmp_path / folder / "sub" / "2.png", (8, 8), color=color + 5)
    (tmp_path / "link").symlink_to(tmp_path / "train")
    names = ["1.png", "sub/2.png"]

    def shared(other: str, listed: list[str]) -> list[str]:
        return shared_images(tmp_path / "train", names, tmp_path / other, listed)

    assert shared("train", ["./sub//2.png", "3.png"]) == ["./sub//2.png"]
    assert shared("link", names) == names
    assert shared("train/sub", ["2.png"]) == ["2.png"]
    assert shared("copies", names) == names
    assert shared("val", names) == []  # other pictures of the same names


def test_a_file_under_two_ids_is_named(tmp_path: Path) -> None:
    content = toy_data()
    path = written(tmp_path, content)
    refuse_repeated_files(read_columns(path), path)
    content["images"][9]["file_name"] = "./" + content["images"][4]["file_name"]
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=r"\./0004\.jpg is listed under two ids, 31 and 66 \(1 such\)"):
        refuse_repeated_files(read_columns(path), path)


@pytest.mark.parametrize("shared", ["one folder", "a link", "a copy", "nothing"])
def test_make_splits_refuses_training_images_in_the_validation_data(tmp_path: Path, shared: str) -> None:
    content = toy_data(images=60)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
    for number, image in enumerate(content["images"]):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / "train" / image["file_name"])
    (tmp_path / "toy.json").write_text(json.dumps(content))
    names = [image["file_name"] for image in content["images"][:3]]
    for number, name in enumerate(names):
        target = tmp_path / "val" / name
        if shared == "a link":
            target.symlink_to(tmp_path / "train" / name)
        elif shared == "a copy":
            shutil.copy(tmp_path / "train" / name, target)
        else:
            Image.new("RGB", (64, 48), (0, number, 9)).save(target)
    (tmp_path / "val.json").write_text(json.dumps(content | {"images": content["images"][:3], "annotations": []}))
    place = "train" if shared == "one folder" else "val"
    data = f'val_annotations = "val.json"\nval_images = "{place}"'
    task = TOY_TASK.replace('train_images = "."', 'train_images = "train"').replace("validation_fraction = 0.1", data)
    (tmp_path / "toy.toml").write_text(task)
    make = partial(api.make_splits, str(tmp_path / "toy.toml"), tmp_path / "split", cache=False)
    if shared == "nothing":
        make()
    else:
        with pytest.raises(UserError, match=rf"val\.json: 3 of 3 validation images .* the first is {names[0]}"):
            make()
        assert not (tmp_path / "split").exists()
