import io

import numpy as np
import pytest
from PIL import Image

from cissod_bench.synthetic.png import code_lengths, encode_png


def decoded(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(height: int, width: int, spread: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, spread, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((1, 1, 3), np.uint8), id="one black pixel"),
        pytest.param(np.full((7, 5, 3), 255, np.uint8), id="flat"),
        pytest.param(noise(128, 128, 256), id="full noise"),
        pytest.param(noise(31, 64, 3), id="few symbols"),
        pytest.param(np.arange(96 * 80 * 3).reshape(96, 80, 3).astype(np.uint8), id="ramps that wrap"),
    ],
)
def test_any_decoder_reads_the_pixels_back(pixels: np.ndarray) -> None:
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_smooth_images_are_compressed() -> None:
    rows, columns = np.mgrid[0:128, 0:128]
    pixels = np.stack([rows, columns, (rows + columns) // 2], axis=2).astype(np.uint8)
    assert len(encode_png(pixels)) < pixels.size / 5


def test_code_lengths_are_those_of_the_textbook_code() -> None:
    # Counts 45, 13, 12, 16, 9, 5: the standard example, whose optimal code has lengths 1, 3, 3, 3, 4, 4.
    assert code_lengths([45, 13, 12, 16, 9, 5]) == [1, 3, 3, 3, 4, 4]


def test_code_lengths_stay_within_fifteen_bits_and_fill_the_code_space() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 30:  # the counts that make the deepest tree: 29 bits without the limit
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(fibonacci)
    assert max(lengths) <= 15
    assert sum(2**-length for length in lengths) == 1


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 pixels"):
        encode_png(pixels)
