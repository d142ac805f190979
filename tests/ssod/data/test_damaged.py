"""Training images that cannot be read: the same replacement every time, counted, named, and not too many."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from cissod_bench.errors import UserError
from cissod_bench.results.record import load_result
from cissod_bench.ssod.data.damaged import DamagedImage, LoadWholeImage, next_of_source
from cissod_bench.ssod.data.jpeg import GREY
from cissod_bench.training.build_config import build_config
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_of_which_few_are_used_are_refused(kind: str, channels: int, tmp_path: Path) -> None:
    """OpenCV keeps the upper eight of 16 bits, so that 12 bits become an image that is almost black."""
    values = np.random.default_rng(0).integers(1, 2**12, (40, 50, channels), dtype=np.uint16)
    if channels == 4:
        values[:, :, 3] = 2**16 - 1  # opaque
    file = tmp_path / f"image{kind}"
    assert cv2.imwrite(str(file), values)
    with pytest.raises(DamagedImage, match=rf"image{kind}: 16 bits a value, of which the largest is 40\d\d"):
        LoadWholeImage()({"img_path": str(file)})
    values[:, :, :3] *= 2**4
    assert cv2.imwrite(str(file), values)
    found = LoadWholeImage()({"img_path": str(file)})["img"]
    assert found.dtype == np.uint8
    assert found.max() == 255
    assert cv2.imwrite(str(file), np.zeros_like(values))  # black is no fault
    LoadWholeImage()({"img_path": str(file)})
    assert cv2.imwrite(str(file), (values // 2**12).astype(np.uint8))  # as dark, with 8 bits
    LoadWholeImage()({"img_path": str(file)})


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_a_file_that_is_cut_off_anywhere_is_found(kind: str, tmp_path: Path) -> None:
    """OpenCV reads most of them without a word."""
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    content = cv2.imencode(kind, image)[1].tobytes()
    file = tmp_path / f"image{kind}"
    file.write_bytes(content)
    whole = LoadWholeImage()({"img_path": str(file)})
    assert whole["img_shape"] == (60, 80)
    assert np.array_equal(whole["img"], cv2.imread(str(file)))
    for length in (0, 1, 10, len(content) // 2, len(content) - 8):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedImage, match=f"image{kind}: "):
            LoadWholeImage()({"img_path": str(file)})
    file.write_bytes(content + b"something that a camera puts behind the image")
    LoadWholeImage()({"img_path": str(file)})


def exif_turned(content: bytes) -> bytes:
    """A JPEG that is to be shown turned by a right angle, with marks of a thumbnail's scan and end in its EXIF data."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0" + b"\xff\xda\xff\xd9"
    return content[:2] + b"\xff\xe1" + (8 + len(tiff)).to_bytes(2) + b"Exif\0\0" + tiff + content[2:]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "options", [(), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4), (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111)]
)
def test_a_jpeg_that_lacks_data_but_no_end_mark_is_found(
    turned: bool, options: tuple[int, ...], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)  # as smooth as photographs
    content = cv2.imencode(".jpg", image, options)[1].tobytes()
    content = exif_turned(content) if turned else content
    length, file = len(content), tmp_path / "image.jpg"
    file.write_bytes(content)
    whole = LoadWholeImage()({"img_path": str(file)})["img"]
    assert whole.shape[:2] == ((83, 61) if turned else (61, 83))
    assert np.array_equal(whole, cv2.imread(str(file)))
    cut_out = content[: length // 2] + content[length * 3 // 5 :]  # with restart markers only the middle lacks data
    for damaged in (
        content[: length // 3] + b"\xff\xd9" + bytes(1000),
        content[: length // 2] + b"\xff\xd9" + content[length // 2 :],
        content[: length * 4 // 5] + b"\xff\xd9",
        *(() if cv2.IMWRITE_JPEG_RST_INTERVAL in options else (cut_out,)),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DamagedImage, match=r"image\.jpg: a part of the image is missing"):
            LoadWholeImage()({"img_path": str(file)})


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_jpeg_may_have_the_grey_of_missing_data(
    progressive: int, channels: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = np.full((61, 83, channels), GREY, dtype=np.uint8)
    image[:8] = np.random.default_rng(0).integers(0, 255, (8, 83, channels), dtype=np.uint8)
    file = tmp_path / "image.jpg"
    cv2.imwrite(str(file), image, (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))
    whole = LoadWholeImage()({"img_path": str(file)})["img"]
    assert (whole[-1, -1] == GREY).all()
    assert np.array_equal(whole, cv2.imread(str(file)))
    assert not capfd.readouterr().err, "the second look is silent"


def test_the_next_image_is_of_the_same_source() -> None:
    assert [next_of_source(index, [3, 5]) for index in range(5)] == [1, 2, 0, 4, 3]


def test_damaged_images_are_replaced_counted_and_named(tiny: Path, tmp_path: Path) -> None:
    """A run with a damaged image is the run with its replacement's content, whatever the number of workers."""
    unlabeled = [image["file_name"] for image in json.loads((tiny / "split" / "unlabeled.json").read_text())["images"]]
    damaged, following = unlabeled[4:6]
    results = []
    for workers in (0, 2):
        folder = tmp_path / f"data-{workers}"
        shutil.copytree(tiny, folder)
        file = folder / "train" / damaged
        file.write_bytes(file.read_bytes()[:60])
        result = run_job(tiny_job(folder, tmp_path / f"run-{workers}", workers=workers, iterations=16))
        assert load_result(tmp_path / f"run-{workers}" / "result.json") == result
        assert list(result.damaged_images) == [str(file)]
        assert result.damaged_images[str(file)] > 0
        (log,) = (tmp_path / f"run-{workers}").glob("*/*.log")
        assert f"{file}: the file is cut off. Replaced by {folder / 'train' / following}" in log.read_text()
        results.append(result)
    assert results[0].metrics == results[1].metrics
    assert [*results[0].damaged_images.values()] == [*results[1].damaged_images.values()]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gbs", {"sweep": True, "generations": 2}),
        ("crest", {"generations": 2, "pick_threshold": 0.05}),
    ],
)
def test_a_sweep_leaves_damaged_images_out(
    method: str, options: dict[str, Any], tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are counted beside the draws, never join D_l, and stop the run where they are too many."""
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    names = [image["file_name"] for image in json.loads((tiny / "split" / "unlabeled.json").read_text())["images"]]
    file = folder / "train" / names[-1]
    file.write_bytes(b"")
    result = run_job(tiny_job(folder, tmp_path / "run", method=method, options=options, iterations=8))
    assert list(result.damaged_images) == [str(file)]
    assert "Teacher inference" in capfd.readouterr().err
    for name in names[:3]:
        (folder / "train" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"training images cannot be read.*raise --damaged-images"):
        run_job(tiny_job(folder, tmp_path / "other", method=method, options=options, iterations=8, damaged_images=2))


def test_too_many_damaged_images_stop_the_run(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    files = sorted((folder / "train").iterdir())
    for file in files[::2]:
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"3 training images cannot be read.*the limit is 2.*raise --damaged-images"):
        run_job(tiny_job(folder, tmp_path / "run", damaged_images=2, iterations=40))
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"than --damaged-images allows \(2\): (\S+\.png: an empty file\. ){3}Replace"):
        run_job(tiny_job(folder, tmp_path / "other", damaged_images=2, workers=1))


def test_damaged_images_one_behind_the_other_are_named_each_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    names = [image["file_name"] for image in json.loads((tiny / "split" / "labeled.json").read_text())["images"]]
    files = [folder / "train" / name for name in names]
    for file, content in zip(files, (b"", files[1].read_bytes()[:60], b"text", b""), strict=False):
        file.write_bytes(content)

    def said(limit: int) -> str:
        job = tiny_job(folder, tmp_path / "run", damaged_images=limit)
        with DefaultScope.overwrite_default_scope("mmdet"):
            dataset = DATASETS.build(build_config(job).train_dataloader.dataset)
        with pytest.raises(DamagedImage) as error:
            dataset[0]
        return str(error.value)

    start = "More damaged training images in a row than --damaged-images allows"
    empty, cut_off, text, _ = files[:4]
    assert said(0) == f"{start} (0): {empty}: an empty file."
    assert said(1) == f"{start} (1): {empty}: an empty file. {cut_off}: the file is cut off."
    assert said(3).endswith(f"{cut_off}: the file is cut off. {text}: not an image. And 1 more.")


def test_a_damaged_validation_image_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    file = next((folder / "val").iterdir())
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{file.name}: the file is cut off. Replace what is damaged and run again"):
        run_job(tiny_job(folder, tmp_path / "run", iterations=1))
