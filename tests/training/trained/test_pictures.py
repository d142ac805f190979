"""Detections drawn into an image: where the boxes are, that names can be read, and the format of the image's name."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cissod_bench.errors import UserError
from cissod_bench.splits import fonts
from cissod_bench.ssod.data.damaged import LoadWholeImage
from cissod_bench.training.trained import pictures
from cissod_bench.training.trained.pictures import class_color, draw, readable

BOXES = np.array([[40, 60, 100, 50]], np.float32)


def image(tmp_path: Path, name: str) -> Path:
    pixels = np.random.default_rng(0).integers(100, 120, (330, 340, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path / name


def drawn(file: Path, boxes: np.ndarray, classes: tuple[str, ...] = ("cat", "dog"), label: int = 1) -> np.ndarray:
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    content = draw(file, boxes, scores, np.full(len(boxes), label), classes)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_box_is_where_it_was_found(tmp_path: Path) -> None:
    file = image(tmp_path, "a.png")
    before, after = np.asarray(Image.open(file)), drawn(file, BOXES)
    for x, y in ((40, 90), (140, 90), (90, 60), (90, 110), (40, 60), (140, 110)):
        assert tuple(after[y, x]) == class_color(1, 2)
    changed = (before != after).any(axis=2)
    assert not changed[:60].any()
    assert not changed[111:].any()
    assert not changed[:, :40].any()
    assert not changed[:, 141:].any()
    assert changed[62:80, 45:80].mean() > 0.5, "the name of the class, on its colour"
    assert not changed[90:105, 60:130].any(), "what is in the box is still seen"


def test_without_detections_the_picture_is_the_image(tmp_path: Path) -> None:
    file = image(tmp_path, "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(drawn(file, np.zeros((0, 4), np.float32)), np.asarray(Image.open(file)))


def test_the_best_detection_is_on_top(tmp_path: Path) -> None:
    file = image(tmp_path, "a.png")
    found = draw(file, np.repeat(BOXES, 2, axis=0), np.array([0.9, 0.5], np.float32), np.array([0, 1]), ("cat", "dog"))
    assert np.asarray(Image.open(io.BytesIO(found)))[90, 40].tolist() == list(class_color(0, 2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.bmp", "BMP"), ("a.webp", "WEBP"), ("a.tif", "TIFF")],
)
def test_the_format_is_that_of_the_name(tmp_path: Path, name: str, kind: str) -> None:
    found = draw(image(tmp_path, name), BOXES, np.array([0.9], np.float32), np.array([0]), ("cat", "dog"))
    assert Image.open(io.BytesIO(found)).format == kind


def test_names_get_a_font_that_has_them_or_are_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_remarked", ["already said"])
    assert readable(("cat", "naïve dog")) == (("cat", "naïve dog"), fonts.default_font())
    monkeypatch.setattr(pictures, "font_with", lambda letters: "has-it.ttf" if set("車1.") <= letters else None)
    assert readable(("cat", "車")) == (("cat", "車"), "has-it.ttf")
    monkeypatch.setattr(pictures, "font_with", lambda letters: None)
    assert readable(("cat", "船")) == (("cat", r"\u8239"), fonts.default_font())


def test_a_small_image_is_enlarged_so_that_names_do_not_cover_it(tmp_path: Path) -> None:
    Image.new("RGB", (128, 100)).save(tmp_path / "small.png")
    after = drawn(tmp_path / "small.png", np.array([[10, 20, 50, 40]], np.float32))
    assert after.shape == (400, 512, 3)
    for x, y in ((40, 200), (240, 200), (200, 80), (200, 240)):
        assert tuple(after[y, x]) == class_color(1, 2)
    assert not after[:80].any()
    assert not after[:, 241:].any()
    Image.new("RGB", (5000, 2)).save(tmp_path / "strip.png")
    assert drawn(tmp_path / "strip.png", BOXES[:, [1, 1, 0, 0]] * [1, 0, 1, 0]).shape == (2, 5000, 3)


def test_lines_and_letters_grow_with_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2400)).save(tmp_path / "large.png")
    after = drawn(tmp_path / "large.png", np.array([[500, 600, 1000, 900]], np.float32))
    row = (after[1300] == class_color(1, 2)).all(axis=1)
    assert row[500:508].all()
    assert not row[508:1400].any()


def test_a_turned_tiff_is_drawn_as_it_was_read(tmp_path: Path) -> None:
    """OpenCV's `imread` gives nothing for it, its decoder does."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn it by a quarter
    Image.fromarray(np.full((200, 100, 3), 110, np.uint8)).save(tmp_path / "turned.tif", exif=exif)
    read = LoadWholeImage()({"img_path": str(tmp_path / "turned.tif")})["img"]
    np.testing.assert_array_equal(drawn(tmp_path / "turned.tif", np.zeros((0, 4), np.float32)), read[:, :, ::-1])


def test_a_format_that_cannot_hold_the_picture_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 16_400, 3), np.uint8)).save(tmp_path / "wide.jpg")
    (tmp_path / "wide.jpg").rename(tmp_path / "wide.webp")
    with pytest.raises(UserError, match=r"wide\.webp: a picture of 16400 x 10 pixels cannot be written as \.webp"):
        drawn(tmp_path / "wide.webp", np.zeros((0, 4), np.float32))
