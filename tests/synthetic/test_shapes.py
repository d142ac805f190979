"""The embedded data sets: the promised annotations and pixels, and what makes them a benchmark."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cissod_bench.errors import UserError
from cissod_bench.synthetic import scenes as module
from cissod_bench.synthetic.render import Canvas, Pose
from cissod_bench.synthetic.scenes import SIZE
from cissod_bench.synthetic.shapes import CLASSES, MAJORITY, MINORITY, OUTLINES, draw_image, generate

# SHA-256 of annotation files and of the pixels of images that `generate` writes with seed 0. They change only together
# with the tasks' protocol version.
GOLDEN = {
    "shapes": {
        "train.json": "bfab203101e03e62afb38b767398e13cd6f02d594d58dcadc315aaeb7275b06c",
        "val.json": "70a9f734ffe86e1cf74459c9ea491f94a1d6c9d77ebc90abfca898b3a9e60087",
        "train/000001.png": "c15e2218e35c9dde72d55f95c3fe3ae4ed57ef42eeaf627c0ec1974a3b24d78e",
        "train/000006.png": "aa14076d831fd82f47646ea624c69ced01b6a5f8d0163969cee34577898c7fc7",
        "val/000002.png": "682a6123d7375c55c0bbb9f590b60a1689af4a12f7476cebc16dc81fdb0f63f8",
    },
    "shapes-lt": {
        "train.json": "e883ddc77b0f91df9cdff89d2c5330fe506e803e0ef765bbf2c17531d5650175",
        "val.json": "5d2b07df02e148c56bd7a99bf098b62ea40b0ebdb3c514bbb1e4153e773e0b34",
        "train/000001.png": "87216ea3febfcc6cadfeb49bdd68d19f401f9a29b6699a3e2d79c7c4890cd41d",
        "train/000006.png": "b732b08951b4c4cde90d7975cdc1eddae56e272eaf4423fcb61c86d66cb7c9f6",
        "val/000002.png": "fd8fdd52cb7b1fc25ca95f6aa2155408414cabf2ee1b773647c98cb914b845da",
    },
}
GOLDEN_FULL = {
    "shapes": "ea03747df206ae8e1a7ddebfd431bd33431fb14d902b409803286c66640cc073",
    "shapes-lt": "353e14a723e6768a48c61266cdd0f1c237c9a9f942b9c69c265b4dab5ff19aab",
}


def sha256(path: Path) -> str:
    """Of a PNG the digest of its size and its rows of RGB."""
    if path.suffix != ".png":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{width} {height}\n".encode() + pixels.tobytes()).hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over `name digest` lines of all files, sorted by name."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("".join(f"{name} {sha256(folder / name)}\n" for name in files).encode()).hexdigest()


@pytest.fixture(scope="module", params=["shapes", "shapes-lt"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("data") / "set"
    generate(request.param, folder, 0, train_images=6, val_images=2)
    return request.param, folder


def test_files_and_pixels_are_the_promised_ones(small: tuple[str, Path]) -> None:
    task, folder = small
    assert {name: sha256(folder / name) for name in GOLDEN[task]} == GOLDEN[task]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["shapes", "shapes-lt"])
def test_the_whole_set_is_the_promised_one(task: str, tmp_path: Path) -> None:
    generate(task, tmp_path / "set", 0)
    assert folder_digest(tmp_path / "set") == GOLDEN_FULL[task]


def test_files_are_a_coco_data_set(small: tuple[str, Path]) -> None:
    _, folder = small
    assert sorted(path.name for path in folder.iterdir()) == ["train", "train.json", "val", "val.json"]
    for part, count in (("train", 6), ("val", 2)):
        coco = json.loads((folder / f"{part}.json").read_text())
        assert [(category["id"], category["name"]) for category in coco["categories"]] == [*enumerate(CLASSES, 1)]
        assert [image["id"] for image in coco["images"]] == list(range(1, count + 1))
        assert {image["file_name"] for image in coco["images"]} == {path.name for path in (folder / part).iterdir()}
        for image in coco["images"]:
            with Image.open(folder / part / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"]) == (SIZE, SIZE)
        assert [box["id"] for box in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
        for box in coco["annotations"]:
            left, top, width, height = box["bbox"]
            assert 0 <= left < left + width <= SIZE
            assert 0 <= top < top + height <= SIZE
            assert 0 < box["area"] <= width * height
            assert box["iscrowd"] == 0


def test_an_image_does_not_depend_on_the_number_of_images(small: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = small
    generate(task, tmp_path / "fewer", 0, train_images=2, val_images=0)
    assert (tmp_path / "fewer/train/000002.png").read_bytes() == (folder / "train/000002.png").read_bytes()


def test_seed_part_and_task_change_the_image() -> None:
    images = [
        draw_image("shapes", "train", 0, 1)[0],
        draw_image("shapes", "train", 1, 1)[0],
        draw_image("shapes", "val", 0, 1)[0],
        draw_image("shapes-lt", "train", 0, 1)[0],
    ]
    assert len({image.tobytes() for image in images}) == 4


def counted(task: str, part: str, images: int) -> tuple[Counter[str], list[set[str]], list[list[int]]]:
    """Boxes of each class, the classes of each image, and all boxes."""
    boxes: Counter[str] = Counter()
    classes, places = [], []
    for number in range(1, images + 1):
        records = draw_image(task, part, 0, number)[1]
        names = [CLASSES[record["category_id"] - 1] for record in records]
        boxes.update(names)
        classes.append(set(names))
        places += [record["bbox"] for record in records]
    return boxes, classes, places


def test_minority_objects_abound_in_shapes() -> None:
    boxes, classes, places = counted("shapes", "train", 200)
    majority, minority = (sum(boxes[name] for name in group) for group in (MAJORITY, MINORITY))
    assert 0.75 < minority / majority < 1.25
    assert min(boxes.values()) > 0.5 * max(boxes.values())
    with_majority = sum(bool(names & set(MAJORITY)) for names in classes)
    with_minority = sum(bool(names & set(MINORITY)) for names in classes)
    both = sum(bool(names & set(MAJORITY)) and bool(names & set(MINORITY)) for names in classes)
    assert with_majority > 90
    assert with_minority > 70
    assert both > 20
    # Large enough to learn from, over a range of scales: four of five boxes are 16 to 56 pixels.
    lengths = np.sqrt([width * height for _, _, width, height in places])
    assert np.quantile(lengths, 0.1) > 16
    assert np.quantile(lengths, 0.9) < 56
    assert np.quantile(lengths, 0.9) > 1.6 * np.quantile(lengths, 0.1)
    assert 2.5 < len(places) / 200 < 3.5


def test_shapes_lt_is_long_tailed_in_train_and_balanced_in_val() -> None:
    train, _, _ = counted("shapes-lt", "train", 200)
    val, _, _ = counted("shapes-lt", "val", 100)
    shares = [train[name] / train.total() for name in CLASSES]
    assert 0.28 < shares[0] < 0.42
    assert sum(shares[:3]) > 0.6
    assert sum(shares[-4:]) < 0.05
    assert min(val[name] for name in CLASSES) > 0.4 * max(val.values())


def test_a_pair_differs_in_its_outline_or_its_texture() -> None:
    pose = Pose(32.0, 32.0, 20.0)
    x, y = pose.local(pose.window())
    for majority, minority in zip(MAJORITY, MINORITY, strict=True):
        one, other = (OUTLINES[name](x, y) < 0 for name in (majority, minority))
        overlap = (one & other).sum() / (one | other).sum()
        if majority == "striped ball":
            assert overlap == 1.0
        else:
            assert 0.4 < overlap < 0.95


def test_boxes_enclose_what_differs_from_the_empty_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clutter, bars and shadows, the painted image differs from its background inside the boxes only."""
    for name in ("_clutter", "_bar"):
        monkeypatch.setattr(module, name, lambda *args, **options: None)
    monkeypatch.setattr(module, "SHADOWS", 0.0)
    canvases = []

    def keep(stream: object, canvas: Canvas) -> np.ndarray:
        canvases.append(canvas)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(module, "_expose", keep)
    backgrounds = []
    original = module._background
    monkeypatch.setattr(module, "_background", lambda *given: backgrounds.append(original(*given)) or backgrounds[-1])
    for number in range(1, 21):
        _, records = draw_image("shapes", "train", 3, number)
        changed = np.abs(canvases[-1].pixels - backgrounds[-1]).max(axis=2) > 0.05
        inside = np.zeros_like(changed)
        for record in records:
            left, top, width, height = record["bbox"]
            # Sharp tips that cover less than half of a pixel reach a little further.
            inside[max(top - 2, 0) : top + height + 2, max(left - 2, 0) : left + width + 2] = True
            patch = changed[top : top + height, left : left + width]
            # A rim may happen to look like the background: allow a pixel.
            assert all(edge.any() for edge in (patch[:2], patch[-2:], patch[:, :2], patch[:, -2:]))
            assert patch.sum() >= 0.8 * record["area"]
        assert not (changed & ~inside).any()


def test_objects_of_one_class_vary_in_colour_and_share_a_hue_with_their_pair() -> None:
    def hues(name: str) -> np.ndarray:
        found = []
        for number in range(1, 81):
            image, records = draw_image("shapes", "train", 0, number)
            pixels = Image.fromarray(image).convert("HSV")
            for record in records:
                if CLASSES[record["category_id"] - 1] == name:
                    left, top, width, height = record["bbox"]
                    crop = np.asarray(pixels.crop((left, top, left + width, top + height)))
                    found.append(np.median(crop[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3, 0]) / 256)
        return np.array(found)

    squares, notched = hues("square"), hues("notched square")
    # Usual hue of the fifth pair: 4/6 of a turn; never all of them.
    for found in (squares, notched):
        usual = np.abs(found - 4 / 6) < 0.12
        assert 0.3 < usual.mean() < 0.95


def test_unknown_set_and_occupied_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'shape'.*Did you mean 'shapes'"):
        generate("shape", tmp_path / "set", 0)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not an empty folder"):
        generate("shapes", tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_after_an_interruption(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 5
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("shapes", tmp_path / "set", 0, train_images=4, val_images=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    generate("shapes-lt", tmp_path / "set", 0, train_images=1, val_images=1)
    assert (tmp_path / "set" / "val" / "000001.png").is_file()
