import colorsys
import hashlib
import math

import numpy as np
import pytest

from cissod_bench.synthetic.render import (
    Canvas,
    Pose,
    Stream,
    Window,
    box,
    clouds,
    colour,
    disc,
    finish,
    polygon,
    random_direction,
    triangle,
    wave,
)


def philox(key: int, blocks: int) -> list[int]:
    """Philox4x64-10 as published (Salmon et al. 2011), counters 1, 2, ...: what Stream must be, whatever NumPy does."""
    mask = 2**64 - 1
    output = []
    for counter in range(1, blocks + 1):
        words, keys = [counter, 0, 0, 0], [key & mask, key >> 64]
        for _ in range(10):
            one, two = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
            words = [two >> 64 ^ words[1] ^ keys[0], two & mask, one >> 64 ^ words[3] ^ keys[1], one & mask]
            keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
        output += words
    return output


def test_stream_is_philox_keyed_by_blake2b() -> None:
    key = int.from_bytes(hashlib.blake2b(b"shapes/train/0/17", digest_size=16).digest(), "little")
    words = philox(key, 3)
    stream = Stream("shapes", "train", 0, 17)
    assert stream.uniform(0.0, 1.0) == (words[0] >> 11) / 2**53
    assert stream.integer(5, 14) == 5 + words[1] % 10
    field = stream.field(2, 8)
    expected = [word >> 8 * place & 0xFF for word in words[2:4] for place in range(8)]
    assert (field * 256).ravel().tolist() == expected


def test_weighted_draws_in_proportion() -> None:
    stream = Stream("weights")
    counts = np.bincount([stream.weighted((6, 0, 3, 1)) for _ in range(4000)], minlength=4)
    assert counts[1] == 0
    # Four standard deviations of a binomial count.
    for count, share in zip(counts, (0.6, 0.0, 0.3, 0.1), strict=True):
        assert abs(count - 4000 * share) <= 4 * math.sqrt(4000 * share * (1 - share))


def test_directions_are_unit_vectors_all_around() -> None:
    stream = Stream("directions")
    directions = np.array([random_direction(stream) for _ in range(3200)])
    assert np.allclose((directions**2).sum(axis=1), 1.0, atol=1e-15)
    turns = np.bincount(((np.arctan2(directions[:, 1], directions[:, 0]) / (2 * np.pi)) % 1.0 * 16).astype(int))
    assert len(turns) == 16
    assert turns.min() > 150  # 200 expected in each sixteenth, at most 17 % fewer in the sparse ones


POSE = Pose(40.3, 41.7, 30.0)
KITE = [(0.0, -1.0), (0.5, 0.0), (0.0, 0.6), (-0.5, 0.0)]
CONCAVE = [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (0.0, 0.0), (-0.8, 0.8)]


@pytest.mark.parametrize(
    ("outline", "area"),
    [
        pytest.param(lambda x, y: disc(x, y, 0.9), math.pi * 0.81, id="disc"),
        pytest.param(lambda x, y: box(x, y, 0.7, 0.3), 4 * 0.21, id="box"),
        pytest.param(lambda x, y: triangle(x, y), 3 * math.sqrt(3) * 0.25, id="triangle"),
        pytest.param(lambda x, y: polygon(x, y, KITE), 0.8, id="kite"),
        pytest.param(lambda x, y: polygon(x, y, CONCAVE), 2.56 - 0.64, id="concave"),
    ],
)
@pytest.mark.parametrize(
    "pose",
    [POSE, Pose(40.0, 40.0, 30.0, 1.2, 0.6, 0.8), Pose(39.5, 40.5, 24.0, 0.8, -0.28, 0.96)],
    ids=["upright", "turned and stretched", "turned and squeezed"],
)
def test_shapes_cover_their_area(outline, area: float, pose: Pose) -> None:
    distance = outline(*pose.local(pose.window()))
    covered = np.clip(0.5 - distance * pose.radius, 0.0, 1.0).sum()
    assert covered == pytest.approx(area * pose.radius**2, rel=0.02)


def test_polygon_is_the_distance_to_its_edges() -> None:
    x, y = np.array([[0.0, 2.0, 0.8, -0.5]]), np.array([[-0.9, 0.0, 1.8, 0.0]])
    # 0.1 below the upper edge; 1.2 right of the right edge; 1 below the lower right corner; 0.3 right of the left edge.
    assert polygon(x, y, CONCAVE) == pytest.approx(np.array([[0.1, 1.2, 1.0, -0.3]]))


def test_wave_is_a_triangle() -> None:
    assert wave(np.array([0.0, 1.0, 2.0, 3.0, 4.0, -1.0]), 4.0).tolist() == [0.0, 0.5, 1.0, 0.5, 0.0, 0.5]


def test_clouds_are_interpolated_lattices() -> None:
    size, cells = 12, 3
    noise = clouds(Stream("clouds"), size, cells, 2)
    stream = Stream("clouds")
    coarse, fine = stream.field(cells + 1, cells + 1), stream.field(2 * cells + 1, 2 * cells + 1)

    def bilinear(lattice: np.ndarray, row: float, column: float) -> float:
        top, left = int(row), int(column)
        return sum(
            lattice[top + down, left + right] * abs(1 - down - (row - top)) * abs(1 - right - (column - left))
            for down in (0, 1)
            for right in (0, 1)
        )

    for row in range(size):
        for column in range(size):
            place = [(at + 0.5) * cells / size for at in (row, column)]
            expected = 0.5 * bilinear(coarse, *place) + 0.25 * bilinear(fine, 2 * place[0], 2 * place[1])
            assert noise[row, column] == pytest.approx(expected)


@pytest.mark.parametrize("hue", [-0.3, 0.0, 0.1, 0.34, 0.5, 0.77, 0.999, 1.4])
@pytest.mark.parametrize(("saturation", "value"), [(0.0, 0.4), (0.6, 0.9), (1.0, 1.0)])
def test_colours_are_those_of_the_hsv_cone(hue: float, saturation: float, value: float) -> None:
    assert colour(hue, saturation, value) == pytest.approx(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def test_paint_is_mixed_by_coverage_and_clipped_to_the_image() -> None:
    canvas = Canvas(np.full((4, 4, 3), 0.5))
    coverage = np.array([[1.0, 1.0, 1.0], [1.0, 0.25, 0.5]])
    canvas.paint(Window(-1, 2, 2, 4), coverage, np.array([1.0, 0.5, 0.0]), owner=7)
    expected = np.full((4, 4, 3), 0.5)
    expected[2, :2] = [1.0, 0.5, 0.0]
    expected[3, 0] = [0.625, 0.5, 0.375]
    expected[3, 1] = [0.75, 0.5, 0.25]
    assert np.array_equal(canvas.pixels, expected)
    # Half a pixel is enough to be what the pixel shows, a quarter is not.
    assert np.argwhere(canvas.owner == 7).tolist() == [[2, 0], [2, 1], [3, 1]]


def test_paint_outside_the_image_changes_nothing() -> None:
    canvas = Canvas(np.zeros((4, 4, 3)))
    canvas.paint(Window(4, 0, 6, 2), np.ones((2, 2)), np.ones(3), owner=1)
    assert not canvas.pixels.any()
    assert (canvas.owner == -1).all()


def test_finish_rounds_and_clips() -> None:
    pixels = np.array([[[0.0, 0.5, 1.0]]])
    assert finish(pixels, np.array(1.0), np.zeros((1, 1, 3))).tolist() == [[[0, 128, 255]]]
    assert finish(pixels, np.array(2.0), np.full((1, 1, 3), -0.1)).tolist() == [[[0, 230, 255]]]
