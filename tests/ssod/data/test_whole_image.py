"""What follows an image in its file is no damage; another size than annotated, and absurd sizes, are named."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cissod_bench.ssod.data.damaged import TAIL, DamagedImage, LoadWholeImage, WrongSize
from cissod_bench.ssod.data.jpeg import has_end, size_of


def encoded(kind: str, options: tuple[int, ...] = ()) -> bytes:
    image = np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return cv2.imencode(kind, image, options)[1].tobytes()


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_the_end_of_a_jpeg_is_found_behind_its_scans(options: tuple[int, ...]) -> None:
    content = encoded(".jpg", options)
    assert has_end(content)
    assert has_end(content + b"\0" * (TAIL + 1))
    assert not any(has_end(content[:length]) for length in range(2, len(content) - 1, 97))


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_much_may_follow_the_image(tmp_path: Path, kind: str) -> None:
    content, path = encoded(kind), tmp_path / f"a{kind}"
    path.write_bytes(content + b"\0\0\0\x18ftypmp42" + bytes(3 * TAIL))
    assert np.array_equal(
        LoadWholeImage()({"img_path": str(path)})["img"], cv2.imdecode(np.frombuffer(content, np.uint8), 1)
    )
    path.write_bytes(content[: len(content) // 2] + b"\0\0\0\x18ftypmp42" + bytes(3 * TAIL))
    with pytest.raises(DamagedImage, match="cut off"):
        LoadWholeImage()({"img_path": str(path)})


@pytest.mark.parametrize(
    ("annotated", "fits"), [((60, 40), True), ((0, 0), True), ((60, 0), True), ((40, 60), False), ((120, 80), False)]
)
def test_the_size_is_that_of_the_annotations(tmp_path: Path, annotated: tuple[int, int], fits: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png"))
    results = {"img_path": str(path), "width": annotated[0], "height": annotated[1]}
    if fits:
        assert LoadWholeImage()(results)["img_shape"] == (40, 60)
        return
    with pytest.raises(WrongSize, match=rf"a\.png: 60 x 40 pixels, but {annotated[0]} x {annotated[1]} in the annot"):
        LoadWholeImage()(results)


def test_an_absurd_size_is_named_with_the_limit(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 70_000, 50_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    assert size_of(content) == (70_000, 50_000)
    assert size_of(b"hello") == (0, 0)
    (tmp_path / "a.png").write_bytes(content)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DamagedImage, match=r"a\.png: 70000 x 50000 pixels are more than OpenCV's limit"):
        LoadWholeImage()({"img_path": str(tmp_path / "a.png")})
    assert limit == Image.MAX_IMAGE_PIXELS
