"""Exports carry the labels of D_l and no others, and give the very split back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cissod_bench as cb
from cissod_bench.errors import UserError
from cissod_bench.splits.export import FORMS
from cissod_bench.splits.folder import MANIFEST, Split
from cissod_bench.synthetic import shapes
from tests.toy import TOY_TASK, toy_data

FORMS_OF_ONE = [form for form in FORMS if form != "unbiased-teacher"]
TASKS = {
    "drop": TOY_TASK,
    "ignore": TOY_TASK + '[labeled]\nminority_objects = "ignore"\n',
    "keep": TOY_TASK + '[labeled]\nminority_objects = "keep"\n',
    "no floor": TOY_TASK + "[labeled]\nfloor = 0\n",
    "no validation": TOY_TASK.replace("validation_fraction = 0.1", 'val_annotations = "v.json"\nval_images = "."'),
    "stratified": TOY_TASK + "[labeled]\nstratify = true\n",
    "frequency": TOY_TASK.replace('minority = ["rare", "scarce"]', "frequency = [4, 12]"),
    "scarce classes": TOY_TASK.replace('minority = ["rare", "scarce"]', "max_images = 40"),
}


@pytest.fixture(params=TASKS, ids=str)
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder of a made-up data set with `toy.json` and `toy.toml`."""
    number = list(TASKS).index(request.param)
    (tmp_path / "toy.json").write_text(json.dumps(toy_data(seed=number, images=150 + 10 * number)))
    (tmp_path / "toy.toml").write_text(TASKS[request.param])
    return tmp_path


def made(toy: Path, out: Path, **options: Any) -> Path:
    return cb.make_splits(str(toy / "toy.toml"), out, annotations=toy / "toy.json", plot=False, **options)[0].folder


def back(toy: Path, ids: Path, **options: Any) -> Split:
    found = cb.import_split(
        str(toy / "toy.toml"), ids, toy / "back", annotations=toy / "toy.json", plot=False, force=True, **options
    )
    return cb.load_split(found.folder)


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_an_export_is_imported_as_the_very_split(form: str, toy: Path) -> None:
    for seed in (0, 5):
        split = made(toy, toy / f"split{seed}", seeds=seed)
        cb.export_split(split, toy / f"{form}{seed}", form=form)
        assert back(toy, toy / f"{form}{seed}").digest == cb.load_split(split).digest


def test_positions_of_several_splits_are_imported_as_the_very_splits(toy: Path) -> None:
    content = json.loads((toy / "toy.json").read_text())
    for box in content["annotations"]:
        box["iscrowd"] = 0  # the list has no place for an image without objects, or with crowds alone
    held = {box["image_id"] for box in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in held]
    (toy / "toy.json").write_text(json.dumps(content))
    splits = [made(toy, toy / f"split{seed}", seeds=seed) for seed in (0, 5)]
    annotations = toy / "toy.json"
    cb.export_split(splits, toy / "lists", form="unbiased-teacher", annotations=annotations)
    content = json.loads((toy / "lists" / "supervision.json").read_text())
    found = [(percentage, seed) for percentage, seeds in content.items() for seed in seeds]
    assert {seed for _, seed in found} == {"0", "5"}
    for percentage, seed in found:
        split = back(toy, toy / "lists" / "supervision.json", percentage=percentage, list_seed=seed)
        assert split.digest == cb.load_split(toy / f"split{seed}").digest
        folder = toy / "lists" / f"{percentage}-seed{seed}"
        assert back(toy, folder).digest == split.digest, "the folder of one of them does, too"
    with pytest.raises(UserError, match=r"an export of 2 splits .*Give the folder of one of them"):
        back(toy, toy / "lists")
    cb.export_split(splits[0], toy / "one", form="unbiased-teacher", annotations=annotations)
    assert back(toy, toy / "one").digest == cb.load_split(splits[0]).digest


def test_the_annotations_of_a_task_file_are_the_default(toy: Path) -> None:
    split = made(toy, toy / "split")
    cb.export_split(split, toy / "lists")
    again = cb.import_split(str(toy / "toy.toml"), toy / "lists", toy / "again", plot=False)
    assert again.manifest.digest == cb.load_split(split).digest


def test_folds_and_imported_splits_are_imported_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(
        TOY_TASK.replace("validation_fraction = 0.1\n", 'val_annotations = "v.json"\nval_images = "."\n')
    )
    made(tmp_path, tmp_path / "folds", folds=3)
    (tmp_path / "ids.txt").write_text("3 10 17 24")
    task, annotations = str(tmp_path / "toy.toml"), tmp_path / "toy.json"
    cb.import_split(task, tmp_path / "ids.txt", tmp_path / "given", annotations=annotations, plot=False)
    for number, folder in enumerate([tmp_path / "folds" / "fold-1", tmp_path / "given"]):
        cb.export_split(folder, tmp_path / f"lists{number}")
        assert back(tmp_path, tmp_path / f"lists{number}").digest == cb.load_split(folder).digest


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_a_long_tailed_split_of_lvis_goes_out_and_comes_back(form: str, tmp_path: Path) -> None:
    """Every class is covered, and labels say which classes were looked for in an image."""
    content = toy_data(images=400)
    for image in content["images"]:
        image["coco_url"] = f"http://images/train2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [9], "not_exhaustive_category_ids": [2]}
    for category in content["categories"]:
        category |= {"frequency": "f", "image_count": 1, "instance_count": 1}
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    (split,) = cb.make_splits("lvis", tmp_path / "split", annotations=tmp_path / "lvis.json", seeds=3, plot=False)
    cb.export_split(split.folder, tmp_path / "lists", form=form)
    options = {"annotations": tmp_path / "lvis.json", "plot": False}
    again = cb.import_split("lvis", tmp_path / "lists", tmp_path / "again", **options)
    assert again.manifest == split.manifest
    assert "neg_category_ids" in (again.folder / "labeled.json").read_text()


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_a_split_of_shapes_goes_out_and_comes_back(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = shapes.generate

    def few(name: str, folder: Path, seed: int, **options: Any) -> None:
        generate(name, folder, seed, train_images=120, val_images=4)

    monkeypatch.setattr(shapes, "generate", few)
    (split,) = cb.make_splits("shapes", tmp_path / "split", seeds=2, plot=False)
    cb.export_split(split.folder, tmp_path / "lists", form=form, images=split.folder / "data" / "train")
    again = cb.import_split("shapes", tmp_path / "lists", tmp_path / "again", plot=False)
    assert again.manifest == split.manifest
    assert cb.load_split(again.folder).digest == cb.load_split(split.folder).digest
    assert all(not check.problem for check in cb.verify_split(again.folder))


def boxes_of(labeled: Path) -> dict[str, list[tuple[int, tuple[float, ...]]]]:
    """Class position and box of every object of D_l by image, read from its COCO file by hand."""
    content = json.loads(labeled.read_text())
    position = {category["id"]: number for number, category in enumerate(content["categories"])}
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[tuple[int, tuple[float, ...]]]] = {name: [] for name in names.values()}
    for box in content["annotations"]:
        if not box["iscrowd"]:
            found[names[box["image_id"]]].append((position[box["category_id"]], tuple(box["bbox"])))
    return found


def read_as_ultralytics_does(folder: Path, listed: str) -> dict[str, list[tuple[int, tuple[float, ...]]]]:
    """Labels of the listed images: `./` is the folder of the list, and the last `/images/` becomes `/labels/`."""
    found = {}
    for line in (folder / listed).read_text().splitlines():
        image = line.replace("./", f"{folder}/", 1)
        before, _, after = image.rpartition("/images/")
        labels = Path(f"{before}/labels/{after}".rsplit(".", 1)[0] + ".txt")
        rows = [row.split() for row in labels.read_text().splitlines()] if labels.is_file() else []
        found[after] = [(int(row[0]), tuple(map(float, row[1:]))) for row in rows]
    return found


def test_a_trainer_that_reads_yolos_files_sees_the_labels_of_d_l_and_no_others(toy: Path) -> None:
    """Version 0.1 wrote lists alone: a trainer read the labels beside the images, hidden ones too."""
    split = made(toy, toy / "split")
    images = toy / "data" / "images"
    for folder in (images, toy / "data" / "labels"):
        folder.mkdir(parents=True)
    names = {image["id"]: image["file_name"] for image in toy_data(images=400)["images"]}
    for name in names.values():  # the full annotations, where a trainer of the whole data set would find them
        (toy / "data" / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 1 1\n")
    notes = cb.export_split(split, toy / "yolo", form="yolo", images=images)
    assert (toy / "yolo" / "images").resolve() == images
    expected = boxes_of(split / "labeled.json")
    seen = read_as_ultralytics_does(toy / "yolo", "labeled.txt")
    assert seen.keys() == expected.keys()
    for name, boxes in expected.items():
        wanted = [
            (label, ((x + width / 2) / 64, (y + height / 2) / 48, width / 64, height / 48))
            for label, (x, y, width, height) in boxes
        ]
        assert [label for label, _ in seen[name]] == [label for label, _ in wanted]
        for (_, box), (_, other) in zip(seen[name], wanted, strict=True):
            assert box == pytest.approx(other, abs=1e-9)
    unlabeled = read_as_ultralytics_does(toy / "yolo", "unlabeled.txt")
    assert len(unlabeled) == cb.load_split(split).counts["unlabeled_images"]
    assert not any(unlabeled.values()), "no label of D_u is found"
    written = (toy / "yolo" / "README.txt").read_text()
    assert written == "\n".join(notes) + "\n"
    assert "never on the full annotations" in written
    names_of = json.loads((split / "labeled.json").read_text())["categories"]
    assert [f'  {label}: "{category["name"]}"' in (toy / "yolo" / "data.yaml").read_text().splitlines()
            for label, category in enumerate(names_of)] == [True] * 4  # fmt: skip


def test_boxes_are_clipped_and_crowds_left_out(tmp_path: Path) -> None:
    content = toy_data()
    for box in content["annotations"]:
        box["bbox"][0] -= 4
        box["bbox"][2] = 30
    (tmp_path / "toy.json").write_text(json.dumps(content))
    (tmp_path / "toy.toml").write_text(TASKS["ignore"])
    split = made(tmp_path, tmp_path / "split")
    cb.export_split(split, tmp_path / "yolo", form="yolo")
    seen = read_as_ultralytics_does(tmp_path / "yolo", "labeled.txt")
    corners = [
        (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
        for boxes in seen.values() for _, (x, y, width, height) in boxes
    ]  # fmt: skip
    assert min(map(min, corners)) == pytest.approx(0, abs=1e-9), "some boxes began outside"
    assert max(map(max, corners)) <= 1 + 1e-9
    assert len(corners) == sum(map(len, boxes_of(split / "labeled.json").values()))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_carries_the_labels_and_the_list_of_d_s(form: str, tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    split = made(tmp_path, tmp_path / "split")
    cb.export_split(split, tmp_path / "out", form=form, annotations=tmp_path / "toy.json")
    folder = next((tmp_path / "out").glob("*-seed0")) if form == "unbiased-teacher" else tmp_path / "out"
    for name in ("labeled.json", "unlabeled.json", MANIFEST):
        assert (folder / name).read_bytes() == (split / name).read_bytes()
    assert (folder / "minority.txt").read_bytes() == (split / "ids" / "minority.txt").read_bytes()
    hidden = {4, 5}
    minority = set(map(int, (folder / "minority.txt").read_text().split()))
    content = json.loads((folder / "labeled.json").read_text())
    assert not [box for box in content["annotations"] if box["category_id"] in hidden - {box["image_id"] in minority}
                and box["image_id"] not in minority]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(file_name="a/images/0.jpg"), r"a/images/0.jpg lies in a folder `images`"),
        (lambda c: c["images"][0].update(file_name="../0.jpg"), r"\.\./0.jpg does not lie in the folder of the images"),
        (lambda c: [image.update(file_name=f"{n // 2}.{'jp'[n % 2]}") for n, image in enumerate(c["images"])],
         "two images share the label file"),
    ],
)  # fmt: skip
def test_names_that_would_lead_a_trainer_elsewhere_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    content = toy_data(images=30)
    change(content)
    (tmp_path / "toy.json").write_text(json.dumps(content))
    (tmp_path / "toy.toml").write_text(TOY_TASK + "[labeled]\nfraction = 1.0\n" if "share" in message else TOY_TASK)
    split = made(tmp_path, tmp_path / "split")
    with pytest.raises(UserError, match=message):
        cb.export_split(split, tmp_path / "yolo", form="yolo")
    assert not (tmp_path / "yolo").exists()


def test_an_export_of_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    cb.export_split(made(tmp_path, tmp_path / "split"), tmp_path / "lists")
    with pytest.raises(UserError, match="has its own list of D_s"):
        back(tmp_path, tmp_path / "lists", minority_ids=tmp_path / "lists" / "minority.txt")
    with pytest.raises(UserError, match="not an export of a split"):
        back(tmp_path, tmp_path)
    for names, problem in (
        (["minority.txt"], "no minority.txt"),
        (["labeled.txt", "labeled.json"], "neither labeled."),
    ):
        shutil.copytree(tmp_path / "lists", tmp_path / names[0])
        for name in names:
            (tmp_path / names[0] / name).unlink()
        with pytest.raises(UserError, match=f"there is {problem}"):
            back(tmp_path, tmp_path / names[0])
    other = toy_data()
    other["annotations"][0]["bbox"][0] += 1
    (tmp_path / "toy.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"not those of the exported split: source.* differ"):
        back(tmp_path, tmp_path / "lists")
    assert not (tmp_path / "back").exists()
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK + "[labeled]\nfloor = 4\n")
    with pytest.raises(UserError, match=r"not those of the exported split: floor differs"):
        back(tmp_path, tmp_path / "lists")
    (tmp_path / "toy.toml").write_text(TOY_TASK.replace('"toy"', '"boy"', 1))
    with pytest.raises(UserError, match=r"an export of task 'toy', protocol 1, not of 'boy'"):
        back(tmp_path, tmp_path / "lists")


def test_edited_lists_are_not_the_exported_split(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "toy.toml").write_text(TOY_TASK)
    cb.export_split(made(tmp_path, tmp_path / "split"), tmp_path / "lists")
    lines = (tmp_path / "lists" / "labeled.txt").read_text().splitlines()
    majority = (tmp_path / "split" / "ids" / "majority.txt").read_text().split()[0]
    shutil.copytree(tmp_path / "lists", tmp_path / "fewer")
    (tmp_path / "fewer" / "labeled.txt").write_text("\n".join(line for line in lines if line != majority))
    with pytest.raises(UserError, match=r"not those of the exported split: .*labeled.json"):
        back(tmp_path, tmp_path / "fewer")
