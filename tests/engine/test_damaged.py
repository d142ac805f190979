"""Training images that cannot be read: the same replacement every time, counted, named, and not too many."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cissod_bench.engine.damaged import DamagedImage, LoadWholeImage, next_of_source
from cissod_bench.engine.run import run_job
from cissod_bench.errors import UserError
from cissod_bench.leaderboard.records import load_result
from tests.engine.conftest import tiny_job


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
    assert "Looking at D_u" in capfd.readouterr().err
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
    with pytest.raises(UserError, match=r"\.png: an empty file. So are the 2 images behind it. Replace the file"):
        run_job(tiny_job(folder, tmp_path / "other", damaged_images=2, workers=1))


def test_a_damaged_validation_image_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    file = next((folder / "val").iterdir())
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{file.name}: the file is cut off. Replace the file and run again"):
        run_job(tiny_job(folder, tmp_path / "run", iterations=1))
