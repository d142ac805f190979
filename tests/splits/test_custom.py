"""Custom tasks from the file to the folder: the command line, held-out parts, folds, seeds, groups by rule, images."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.splits.folder import load_split

BCCD = Path(__file__).parents[3] / "shared" / "data" / "images" / "bccd"

TASK = """
name = "blood"
[data]
train_annotations = "{data}/bccd_coco.json"
train_images = "{data}"
validation_fraction = 0.2
[groups]
minority = ["WBC", "Platelets"]
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    if not BCCD.is_dir():
        pytest.skip(f"the BCCD data is not at {BCCD}")
    path = tmp_path / "blood.toml"
    path.write_text(TASK.format(data=BCCD))
    return path


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_held_out_images_are_nowhere_else(task_file: Path, tmp_path: Path) -> None:
    found = json.loads(command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--json"))
    split = load_split(tmp_path / "out")
    assert found["digest"] == split.digest
    assert split.validation_file is not None
    validation = json.loads(split.validation_file.read_text())
    held_out = {image["id"] for image in validation["images"]}
    assert len(held_out) == 73  # a fifth of 364
    training = {*split.labeled_ids.tolist(), *split.unlabeled_ids.tolist()}
    assert not held_out & training
    assert len(held_out | training) == 364
    # Validation keeps all boxes, of majority and minority, but the two of zero size.
    content = json.loads((BCCD / "bccd_coco.json").read_text())
    wanted = {
        annotation["id"]
        for annotation in content["annotations"]
        if annotation["image_id"] in held_out and min(annotation["bbox"][2:]) > 0
    }
    assert {annotation["id"] for annotation in validation["annotations"]} == wanted


def test_seeds_share_the_held_out_images(task_file: Path, tmp_path: Path) -> None:
    command("make-splits", "--from-task", task_file, "--out", tmp_path / "out", "--seeds", "0,3")
    first, second = (load_split(tmp_path / "out" / name) for name in ("seed-0", "seed-3"))
    assert first.labeled_ids.tolist() != second.labeled_ids.tolist()
    assert first.validation_file is not None
    assert second.validation_file is not None
    assert first.validation_file.read_bytes() == second.validation_file.read_bytes()


def test_every_image_is_held_out_by_one_fold(task_file: Path, tmp_path: Path) -> None:
    command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--folds", "3")
    held_out: list[int] = []
    for fold in range(3):
        file = load_split(tmp_path / "out" / f"fold-{fold}").validation_file
        assert file is not None
        held_out += [image["id"] for image in json.loads(file.read_text())["images"]]
    assert sorted(held_out) == list(range(1, 365))


def test_more_folds_than_images(task_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--folds 365: there are 364 images, one for each fold at most"):
        command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--folds", "365")
    assert not (tmp_path / "out").exists()


def test_boxes_given_as_corners(task_file: Path, tmp_path: Path) -> None:
    content = json.loads((BCCD / "bccd_coco.json").read_text())
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width + 1, y + height + 1]
    (tmp_path / "corners.json").write_text(json.dumps(content))
    given = ["--task", task_file, "--out", tmp_path / "out", "--annotations", tmp_path / "corners.json"]
    with pytest.raises(UserError, match=r"reach over the border .* look like x1, y1, x2, y2. COCO has x, y, width"):
        command("make-splits", *given)


def test_annotations_of_a_task_file_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bccd_coco.json").mkdir()
    (tmp_path / "blood.toml").write_text(TASK.format(data=tmp_path))
    with pytest.raises(UserError, match=r"bccd_coco\.json, which is a folder and not a file"):
        command("make-splits", "--from-task", tmp_path / "blood.toml", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "groups"),
    [
        ("max_images = 250", {"maj": ("WBC", "RBC"), "min": ("Platelets",)}),
        ("max_images = 100", None),
        ("random = 3", None),
    ],
)
def test_groups_by_rule(task_file: Path, tmp_path: Path, entry: str, groups: Any) -> None:
    task_file.write_text(TASK.format(data=BCCD).replace('minority = ["WBC", "Platelets"]', entry))
    if groups is None:
        with pytest.raises(UserError, match="is left for the m"):
            command("make-splits", "--task", task_file, "--out", tmp_path / "out")
        return
    command("make-splits", "--task", task_file, "--out", tmp_path / "out")
    assert load_split(tmp_path / "out").groups == groups


def test_groups_by_frequency_are_the_same_in_every_fold(task_file: Path, tmp_path: Path) -> None:
    # Platelets are in 213 or so of the 364 images: with a third held out, WBC would be below 250 too.
    task_file.write_text(TASK.format(data=BCCD).replace('minority = ["WBC", "Platelets"]', "max_images = 250"))
    command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--folds", "3", "--seeds", "0,1")
    splits = [load_split(tmp_path / "out" / f"seed-{seed}" / f"fold-{fold}") for seed in (0, 1) for fold in range(3)]
    assert {split.groups["min"] for split in splits} == {("Platelets",)}


def test_the_template_makes_a_split_once_it_is_filled_in(task_file: Path, tmp_path: Path) -> None:
    """Fill in what its comments say must be filled in, as a user would, and take each of the ways to form groups."""
    file = tmp_path / "mine.toml"
    assert f"`cissod-bench make-splits --task {file}`" in command("make-splits", "--template", file)
    for old, new in (
        ('"train.json"', f'"{BCCD}/bccd_coco.json"'),
        ('train_images = "images"', f'train_images = "{BCCD}"'),
        ('val_annotations = "val.json"\n', ""),
        ('val_images = "images"\n', ""),
        ("# validation_fraction", "validation_fraction"),
    ):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    groups = 'minority = ["a rare class", "another one"]'
    template = file.read_text()
    assert groups in template
    for number, way in enumerate(('minority = ["WBC"]', "max_images = 250", "random = 1", "frequency = [10, 100]")):
        file.write_text(template.replace(groups, way))
        found = json.loads(command("make-splits", "--from-task", file, "--out", tmp_path / f"out{number}", "--json"))
        assert found["counts"]["validation_images"] == 73
        assert found["counts"]["labeled_images"] > 0
    file.write_text(template)
    with pytest.raises(UserError, match=r"'a rare class'.*Available: WBC, RBC, Platelets"):
        command("make-splits", "--from-task", file, "--out", tmp_path / "none")


def test_random_groups_depend_on_their_own_seed_only(task_file: Path, tmp_path: Path) -> None:
    task_file.write_text(TASK.format(data=BCCD).replace('minority = ["WBC", "Platelets"]', "random = 1"))
    command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--seeds", "0-4")
    groups = [load_split(tmp_path / "out" / f"seed-{seed}").groups for seed in range(5)]
    assert all(group == groups[0] for group in groups)
    assert len(groups[0]["min"]) == 1


def test_images_that_do_not_exist(task_file: Path, tmp_path: Path) -> None:
    text = task_file.read_text().replace(f'train_images = "{BCCD}"', 'train_images = "."')
    task_file.write_text(text)
    with pytest.raises(
        UserError, match=r"lacks 364 of 364 images of .*bccd_coco.json, such as BCCD/JPEGImages/BloodImage_"
    ):
        command("make-splits", "--task", task_file, "--out", tmp_path / "out")
    task_file.write_text(text.replace('train_images = "."', 'train_images = "nowhere"'))
    with pytest.raises(UserError, match="There is no image folder"):
        command("make-splits", "--task", task_file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_annotations_of_a_task_file_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "blood.toml").write_text(TASK.format(data=tmp_path))
    with pytest.raises(UserError, match=r"bccd_coco\.json, which does not exist\. .*correct \[data\] in the task file"):
        command("make-splits", "--from-task", tmp_path / "blood.toml", "--out", tmp_path / "out")


@pytest.mark.parametrize("seeds", ["x", "1-", "-1", "3-1", "1,1", ""])
def test_seeds_that_are_none(task_file: Path, tmp_path: Path, seeds: str) -> None:
    with pytest.raises(UserError, match="--seed"):
        command("make-splits", "--task", task_file, "--out", tmp_path / "out", "--seeds", seeds)


def test_the_template_is_never_written_over_a_file(tmp_path: Path) -> None:
    command("make-splits", "--template", tmp_path / "new.toml")
    with pytest.raises(UserError, match="exists already"):
        command("make-splits", "--template", tmp_path / "new.toml")


def test_an_embedded_task_makes_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import partial

    from cissod_bench.synthetic import shapes

    monkeypatch.setattr(shapes, "generate", partial(shapes.generate, train_images=60, val_images=4))
    command("make-splits", "--task", "shapes", "--out", tmp_path / "out")
    split = load_split(tmp_path / "out")
    labeled = json.loads(split.labeled_file.read_text())
    assert all((tmp_path / "out" / "data" / "train" / image["file_name"]).is_file() for image in labeled["images"])
    digests = (tmp_path / "out" / "data" / "PIXELS.sha256").read_text().splitlines()
    assert len(digests) == 64
    assert "unchanged" in command("make-splits", "--task", "shapes", "--out", tmp_path / "out")
    with pytest.raises(UserError, match="another split"):
        command("make-splits", "--task", "shapes", "--out", tmp_path / "out", "--seed", "1")
