"""`splits verify, show, diff, export, import` on a split of made-up data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.coco.reader import read_coco, read_columns
from cissod_bench.errors import UserError
from cissod_bench.splits.export import detectron2_images, supervision_percentage
from cissod_bench.splits.folder import MANIFEST, load_split, manifest_digest
from cissod_bench.splits.interop import read_ids
from cissod_bench.splits.verify import verify_split
from tests.toy import TOY, TOY_TASK, make_split, toy_data

UNITS = ("images", "boxes")


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["splits", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def split(tmp_path: Path) -> Path:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    make_split(TOY, tmp_path / "toy.json", tmp_path / "split")
    return tmp_path / "split"


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(folder: Path) -> None:
    """Make the manifest agree with altered files, so that only the deeper checks can find them."""
    from cissod_bench.io import sha256_file

    def change(content: dict[str, Any]) -> None:
        content["outputs"] = {name: sha256_file(folder / name) for name in content["outputs"]}
        content["digest"] = manifest_digest(content)

    edit(folder / MANIFEST, change)


def broken(folder: Path, **options: Any) -> list[str]:
    return [check.promise for check in verify_split(folder, **options) if check.problem]


def test_a_sound_split_passes_every_check(split: Path) -> None:
    assert broken(split) == []
    assert "FAILED" not in command("verify", split)


@pytest.mark.parametrize(
    ("file", "change", "promise"),
    [
        ("labeled.json", lambda c: c["annotations"].pop(), "sha256"),
        ("labeled.json", lambda c: c["images"].pop(), "labeled.json lists D_l"),
        ("labeled.json", lambda c: c["annotations"].clear(), "floor"),
        ("labeled.json", lambda c: c["annotations"][0].update(image_id=-7), "image of D_l"),
        ("unlabeled.json", lambda c: c["images"].pop(), "unlabeled.json lists D_u"),
        ("unlabeled.json", lambda c: c["images"][0].update(neg_category_ids=[1]), "holds no label"),
        (
            "unlabeled.json",
            lambda c: c["annotations"].append({"image_id": 3, "category_id": 2}),
            "holds no label",
        ),
    ],
)
def test_every_broken_promise_is_found(split: Path, file: str, change: Any, promise: str) -> None:
    edit(split / file, change)
    if promise != "sha256":
        reseal(split)
    assert any(promise in found for found in broken(split))
    with pytest.raises(UserError, match="checks failed"):
        command("verify", split)


def test_an_image_in_two_parts_is_found(split: Path) -> None:
    path = split / "ids" / "unlabeled.txt"
    path.write_text(path.read_text() + (split / "ids" / "majority.txt").read_text().split()[0] + "\n")
    reseal(split)
    found = broken(split)
    assert "D_m, D_s and D_u share no image" in found
    assert "D_l and D_u are all training images" in found


def test_validation_images_and_missing_images_are_found(split: Path, tmp_path: Path) -> None:
    content = toy_data()
    (tmp_path / "val.json").write_text(json.dumps({**content, "images": content["images"][:2], "annotations": []}))
    assert broken(split, validation=tmp_path / "val.json") == ["no validation image is trained on"]
    other = [{**image, "file_name": "other" + image["file_name"]} for image in content["images"]]
    (tmp_path / "val.json").write_text(json.dumps({**content, "images": other, "annotations": []}))
    assert broken(split, validation=tmp_path / "val.json") == []
    (tmp_path / "images").mkdir()
    for image in content["images"][1:]:
        (tmp_path / "images" / image["file_name"]).touch()
    assert broken(split, images=tmp_path / "images") == [f"every image is in {tmp_path / 'images'}"]


def test_show_counts_what_the_file_holds(split: Path) -> None:
    shown = json.loads(command("show", split, "--json"))
    labeled = json.loads((split / "labeled.json").read_text())
    by_name = {row["name"]: row for row in shown["classes"]}
    for category in labeled["categories"]:
        boxes = [box for box in labeled["annotations"] if box["category_id"] == category["id"]]
        row = by_name[category["name"]]
        assert row["labeled_boxes"] == sum(not box["iscrowd"] for box in boxes)
        assert row["labeled_images"] == len({box["image_id"] for box in boxes})
    for group, ids in (("maj", {9, 2}), ("min", {5, 4})):
        boxes = [box for box in labeled["annotations"] if box["category_id"] in ids]
        row = shown["groups"][group]
        assert row["labeled_boxes"] == sum(not box["iscrowd"] for box in boxes)
        assert row["labeled_images"] == len({box["image_id"] for box in boxes})  # an image with both counts once
    assert shown["imbalance_ratio"]["labeled"] == pytest.approx(
        max(row["labeled_images"] for row in by_name.values()) / min(row["labeled_images"] for row in by_name.values())
    )
    rare = {box["image_id"] for box in labeled["annotations"] if box["category_id"] == 5}
    common = {box["image_id"] for box in labeled["annotations"] if box["category_id"] == 9}
    assert dict(map(tuple, shown["co_occurrence"]["rare"]))["common"] == pytest.approx(len(rare & common) / len(rare))
    text = command("show", split)
    row = by_name["scarce"]
    cells = [
        "scarce",
        row["group"],
        *(f"{row[f'{p}_{u}']:,}" for p in ("train", "labeled", "unlabeled") for u in UNITS),
    ]
    assert cells in [line.split() for line in text.splitlines()]


def test_diff(split: Path, tmp_path: Path) -> None:
    assert command("diff", split, split) == "The same split.\n"
    make_split(TOY, tmp_path / "toy.json", tmp_path / "other", seed=1)
    found = json.loads(command("diff", split, tmp_path / "other", "--json"))
    first, second = load_split(split), load_split(tmp_path / "other")
    assert found["fields"] == {"seed": [0, 1]}
    both = set(first.labeled_ids.tolist()) & set(second.labeled_ids.tolist())
    assert found["images"]["labeled"]["both"] == len(both)
    assert "seed" in command("diff", split, tmp_path / "other")


def test_ids_go_out_and_come_back(split: Path, tmp_path: Path) -> None:
    command("export", split, "--out", tmp_path / "lists")
    ids = tmp_path / "lists" / "labeled.txt"
    assert [int(line) for line in ids.read_text().split()] == load_split(split).labeled_ids.tolist()
    with pytest.raises(UserError, match="exists already"):
        command("export", split, "--out", tmp_path / "lists")
    arguments = ("--task", tmp_path / "toy.toml", "--annotations", tmp_path / "toy.json")
    command("import", *arguments, "--ids", ids, "--out", tmp_path / "back")
    back = load_split(tmp_path / "back")
    assert back.labeled_ids.tolist() == load_split(split).labeled_ids.tolist()
    assert back.options["imported"]
    # Everything in the listed images is annotated.
    labeled = json.loads(back.labeled_file.read_text())
    images = set(back.labeled_ids.tolist())
    assert len(labeled["annotations"]) == sum(box["image_id"] in images for box in toy_data()["annotations"])
    # With D_s named, the very split comes back.
    minority = ("--minority-ids", split / "ids" / "minority.txt")
    command("import", *arguments, "--ids", ids, *minority, "--out", tmp_path / "again")
    assert (tmp_path / "again" / "labeled.json").read_bytes() == (split / "labeled.json").read_bytes()
    assert broken(tmp_path / "again") == []


def taken_by_unbiased_teacher(
    content: dict[str, dict[str, list[int]]], listed: int, percentage: float, seed: int
) -> Any:
    """The check of `divide_label_unlabel` in `ubteacher/data/build.py`."""
    positions = content[str(percentage)][str(seed)]
    assert len(positions) == int(percentage / 100.0 * listed)
    return positions


def test_positions_go_out_and_come_back(split: Path, tmp_path: Path) -> None:
    annotations = tmp_path / "toy.json"
    make_split(TOY, annotations, tmp_path / "other", seed=3)
    form = ("--form", "unbiased-teacher", "--annotations", annotations)
    said = command("export", split, tmp_path / "other", *form, "--out", tmp_path / "lists")
    target = (tmp_path / "lists" / "supervision.json").rename(tmp_path / "published.json")  # no labels beside it
    content = json.loads(target.read_text())
    listed = sorted({box["image_id"] for box in toy_data()["annotations"] if not box["iscrowd"]})
    assert detectron2_images(read_coco(annotations)[0]).tolist() == listed
    assert said.count("SUP_PERCENT") == 2
    for folder, seed in ((split, 0), (tmp_path / "other", 3)):
        ids = load_split(folder).labeled_ids.tolist()
        percentage = next(key for key, seeds in content.items() if str(seed) in seeds)
        assert f"SUP_PERCENT {percentage} DATALOADER.RANDOM_DATA_SEED {seed}" in said
        positions = taken_by_unbiased_teacher(content, len(listed), float(percentage), seed)
        assert [listed[position] for position in positions] == ids
        arguments = ("--task", tmp_path / "toy.toml", "--annotations", annotations, "--ids", target)
        which = ("--percentage", percentage, "--list-seed", seed)
        command("import", *arguments, *which, "--out", tmp_path / f"back{seed}")
        back = load_split(tmp_path / f"back{seed}")
        assert (back.labeled_ids.tolist(), back.seed) == (ids, seed)
        assert broken(tmp_path / f"back{seed}") == []
    with pytest.raises(UserError, match=r"several lists. Choose one with --percentage: "):
        command("import", *arguments, "--out", tmp_path / "back")
    with pytest.raises(UserError, match=r"two splits have"):
        command(
            "export", split, split, "--form", "unbiased-teacher", "--annotations", annotations, "--out", tmp_path / "x"
        )


@given(numbers=st.integers(1, 2_000_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_unbiased_teacher_takes_every_percentage(numbers: tuple[int, int]) -> None:
    labeled, listed = numbers
    percentage = supervision_percentage(labeled, listed)
    taken_by_unbiased_teacher({percentage: {"0": list(range(labeled))}}, listed, float(percentage), 0)


def test_percentages_of_the_published_lists() -> None:
    # Lengths of the lists in dataseed/COCO_supervision.txt: `int` of the percentage of 117,266.
    lengths = {"0.01": 11, "0.1": 117, "0.5": 586, "1.0": 1172, "2.0": 2345, "5.0": 5863, "10.0": 11726}
    assert {supervision_percentage(labeled, 117_266): labeled for labeled in lengths.values()} == lengths


def test_yolo_lists_go_out_and_come_back(split: Path, tmp_path: Path) -> None:
    command("export", split, "--form", "yolo", "--out", tmp_path / "lists")
    names = {image["id"]: image["file_name"] for image in toy_data()["images"]}
    for name, ids in (("labeled", load_split(split).labeled_ids), ("unlabeled", load_split(split).unlabeled_ids)):
        lines = (tmp_path / "lists" / f"{name}.txt").read_text().splitlines()
        assert lines == [f"./images/{names[image_id]}" for image_id in np.sort(ids).tolist()]
    arguments = ("--task", tmp_path / "toy.toml", "--annotations", tmp_path / "toy.json")
    command("import", *arguments, "--ids", tmp_path / "lists" / "labeled.txt", "--out", tmp_path / "back")
    assert load_split(tmp_path / "back").labeled_ids.tolist() == load_split(split).labeled_ids.tolist()


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        ("b/1.jpg\na/1.jpg\n", [0, 1]),
        ("\n  /data/set/a/1.jpg  \nC:\\set\\a\\2 b.jpg\r\n", [0, 2]),
        ("2 b.jpg", [2]),
        ("1.jpg", "matches 2 images"),
        ("c/1.jpg", "matches no image"),
        ("a/1.jpg\nx/a/1.jpg", "more than once"),
    ],
)
def test_paths_are_matched_from_their_end(tmp_path: Path, lines: str, rows: Any) -> None:
    names = ["a/1.jpg", "b/1.jpg", "a/2 b.jpg"]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "names.json").write_text(json.dumps(content))
    columns = read_coco(tmp_path / "names.json")[0]
    (tmp_path / "list.txt").write_text(lines)
    if isinstance(rows, str):
        with pytest.raises(UserError, match=rows):
            read_ids(tmp_path / "list.txt", columns)
    else:
        assert read_ids(tmp_path / "list.txt", columns).tolist() == rows


def test_imported_splits_hold_out_what_the_task_holds_out(tmp_path: Path) -> None:
    """The task's own images, save those that the list labels."""
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    task = ("--task", tmp_path / "toy.toml", "--annotations", tmp_path / "toy.json")

    def held_out(folder: str) -> set[int]:
        file = load_split(tmp_path / folder).validation_file
        assert file is not None
        return {image["id"] for image in json.loads(file.read_text())["images"]}

    CliRunner().invoke(app, ["make-splits", *map(str, task), "--out", str(tmp_path / "made"), "--no-plot"])
    command("export", tmp_path / "made", "--out", tmp_path / "lists")
    command("import", *task, "--ids", tmp_path / "lists" / "labeled.txt", "--out", tmp_path / "back")
    assert held_out("back") == held_out("made")
    listed = sorted(held_out("made"))[:5]
    (tmp_path / "others.txt").write_text("\n".join(map(str, listed)))
    command("import", *task, "--ids", tmp_path / "others.txt", "--out", tmp_path / "others")
    assert len(held_out("others")) == len(held_out("made"))
    assert held_out("others") >= held_out("made") - set(listed)
    assert not held_out("others") & set(listed)
    assert broken(tmp_path / "others") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("3 3", "more than once"),
        ("3 4", "image 4 is not in the annotations"),
        ("3 x", "not a list of image ids"),
        ('{"1": 2}', "percentage -> seed -> positions"),
        ('{"1": {"2": [100000]}}', "belongs to other annotations"),
        ('{"1": {"2": [-1]}}', "belongs to other annotations"),
    ],
)
def test_lists_that_are_none(split: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list").write_text(text)
    arguments = ("--task", tmp_path / "toy.toml", "--annotations", tmp_path / "toy.json", "--ids", tmp_path / "list")
    with pytest.raises(UserError, match=message):
        command("import", *arguments, "--percentage", "1", "--list-seed", "2", "--out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_coco_file_of_the_labelled_images_is_a_list_of_them(tmp_path: Path) -> None:
    """As Soft Teacher publishes D_l; and lists with a byte order mark."""
    content = toy_data()
    (tmp_path / "toy.json").write_text(json.dumps(content))
    columns = read_columns(tmp_path / "toy.json")
    chosen = content["images"][3:30:4]
    wanted = sorted(image["id"] for image in chosen)
    labeled = {"images": chosen, "annotations": content["annotations"][:2], "categories": content["categories"]}
    for name, text in (
        ("a.json", json.dumps(labeled)),
        ("b.json", "\ufeff" + json.dumps(labeled)),
        ("c.txt", "\ufeff" + "\n".join(image["file_name"] for image in chosen)),
        ("d.txt", "\ufeff" + " ".join(map(str, wanted))),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert columns.image_ids[read_ids(tmp_path / name, columns)].tolist() == wanted, name
    labeled["images"] = [image | {"file_name": "x" + image["file_name"]} for image in chosen]
    (tmp_path / "a.json").write_text(json.dumps(labeled))
    with pytest.raises(UserError, match=r"image 24 is x0003\.jpg, but 0003\.jpg in the annotations"):
        read_ids(tmp_path / "a.json", columns)
