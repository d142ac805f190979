"""Painting small scenes with arithmetic that gives the same bits on every machine.

Everything that differs between machines is avoided: NumPy's distributions (they change between versions),
transcendental functions (their last bit depends on libm and SIMD) and sums over arrays (their order depends on the
build). What is used rounds the same on every IEEE machine: `+ - * /`, square root, minimum, maximum and floor on
float64, element by element. Random numbers are raw bits of Philox4x64-10 (Salmon et al. 2011), keyed by a BLAKE2b hash.

Shapes are signed distances (negative inside), so that union is a minimum, intersection a maximum, subtraction a
maximum with the negative, and a clipped distance in pixels is an anti-aliased coverage.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Outline = Callable[[Field, Field], Field]
Colour = tuple[float, float, float]


class Stream:
    """Random numbers that depend only on the key."""

    def __init__(self, *key: str | int) -> None:
        text = "/".join(str(part) for part in key)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high) with 53 random bits."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high], both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform(0.0, 1.0) < probability

    def weighted(self, weights: Sequence[int]) -> int:
        """A random index, with probability proportional to whole-number weights."""
        ticket = self.integer(0, sum(weights) - 1)
        for index, weight in enumerate(weights):
            ticket -= weight
            if ticket < 0:
                return index
        raise AssertionError("a ticket is below the sum of the weights")

    def field(self, *shape: int) -> Field:
        """An array of numbers in [0, 1), multiples of 1/256."""
        size = int(np.prod(shape))
        # Bytes in little-endian order on every machine.
        raw = np.asarray(self._bits.random_raw((size + 7) // 8), dtype="<u8").view(np.uint8)[:size]
        return raw.reshape(shape) / 256.0


@dataclass(frozen=True)
class Pose:
    """Where to put a shape of unit size: centre and size in pixels, stretch (1 = none), direction as a unit vector."""

    x: float
    y: float
    radius: float
    stretch: float = 1.0
    cosine: float = 1.0
    sine: float = 0.0

    def local(self, window: "Window") -> tuple[Field, Field]:
        """Unit-size coordinates of the pixel centres of a window."""
        across = np.arange(window.left, window.right) + 0.5 - self.x
        down = (np.arange(window.top, window.bottom) + 0.5 - self.y)[:, None]
        along = across * self.cosine + down * self.sine
        aside = down * self.cosine - across * self.sine
        return along / (self.radius * self.stretch), aside / (self.radius / self.stretch)

    def window(self) -> "Window":
        """Pixels that a shape within 1.5 units of the centre can touch, including those outside the image."""
        reach = int(1.5 * self.radius * max(self.stretch, 1.0 / self.stretch)) + 2
        column, row = int(np.floor(self.x)), int(np.floor(self.y))
        return Window(column - reach, row - reach, column + reach + 1, row + reach + 1)

    def moved(self, across: float, down: float) -> "Pose":
        """The same pose, moved."""
        return Pose(self.x + across, self.y + down, self.radius, self.stretch, self.cosine, self.sine)


def random_direction(stream: Stream) -> tuple[float, float]:
    """Cosine and sine of a random angle, from the rational parametrisation of the circle."""
    # tan(a/2) within an eighth of a turn to either side, where the density is even to 17 %, then quarter turns.
    half = stream.uniform(-0.4142135623730951, 0.4142135623730951)
    cosine, sine = (1.0 - half * half) / (1.0 + half * half), 2.0 * half / (1.0 + half * half)
    for _ in range(stream.integer(0, 3)):
        cosine, sine = -sine, cosine
    return cosine, sine


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, right and bottom excluded; may reach beyond the image."""

    left: int
    top: int
    right: int
    bottom: int


# Shapes: signed distances in unit coordinates, exact or, near corners, slightly too small, which only rounds edges.


def disc(x: Field, y: Field, radius: float) -> Field:
    """Disc around the origin."""
    return np.sqrt(x * x + y * y) - radius


def box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """Upright rectangle around the origin."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def triangle(x: Field, y: Field, inradius: float = 0.5) -> Field:
    """Equilateral triangle around the origin that points to negative y."""
    return np.maximum(y, 0.8660254037844386 * np.abs(x) - 0.5 * y) - inradius


def polygon(x: Field, y: Field, corners: Sequence[tuple[float, float]]) -> Field:
    """Simple polygon: distance to the nearest edge, negative where a ray to the right crosses an odd number."""
    nearest = np.full(np.broadcast(x, y).shape, np.inf)
    inside = np.zeros(nearest.shape, np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        px, py = x - x0, y - y0
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        qx, qy = px - along * dx, py - along * dy
        nearest = np.minimum(nearest, qx * qx + qy * qy)
        if dy != 0.0:
            inside ^= ((y0 > y) != (y1 > y)) & (px < py * (dx / dy))
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


# Textures: numbers in [0, 1].


def wave(x: Field, period: float) -> Field:
    """Triangle wave: 0 at multiples of the period, 1 half-way between them."""
    phase = x / period
    folded: Field = 1.0 - np.abs(2.0 * (phase - np.floor(phase)) - 1.0)
    return folded


def clouds(stream: Stream, size: int, cells: int, octaves: int) -> Field:
    """Value noise of shape (size, size): random lattices of `cells`, 2 `cells`, ... squares, halved in weight."""
    total: Field = np.zeros((size, size))
    weight = 0.5
    for _ in range(octaves):
        lattice = stream.field(cells + 1, cells + 1)
        place = (np.arange(size) + 0.5) * cells / size
        low = np.floor(place).astype(np.int64)
        part = place - low
        rows = lattice[low] * (1.0 - part)[:, None] + lattice[low + 1] * part[:, None]
        total = total + weight * (rows[:, low] * (1.0 - part) + rows[:, low + 1] * part)
        cells, weight = cells * 2, weight / 2
    return total


def colour(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] of a hue (any number, 1 = a turn), a saturation and a value in [0, 1]."""
    channels = []
    for shift in (0.0, 4.0, 2.0):
        angle = (6.0 * hue + shift) % 6.0
        strength = min(max(abs(angle - 3.0) - 1.0, 0.0), 1.0)
        channels.append(value * (1.0 - saturation * (1.0 - strength)))
    return channels[0], channels[1], channels[2]


class Canvas:
    """A square image that is being painted, and the topmost object of each pixel.

    Attributes:
        pixels: float64 (size, size, 3), about 0..1.
        owner: int16 (size, size): number of the object that covers at least half of the pixel, -1 for none.
    """

    def __init__(self, background: Field) -> None:
        self.size = background.shape[0]
        self.pixels = background.copy()
        self.owner = np.full((self.size, self.size), -1, np.int16)

    def paint(self, window: Window, coverage: Field, paint: Field, owner: int | None = None) -> None:
        """Apply paint to the part of a window that lies in the image.

        Args:
            window: where.
            coverage: (height, width) of the window, 0 = nothing, 1 = opaque.
            paint: RGB, broadcastable to (height, width, 3).
            owner: number of the object that the pixels now show; None leaves it unchanged.
        """
        left, top = max(window.left, 0), max(window.top, 0)
        right, bottom = min(window.right, self.size), min(window.bottom, self.size)
        if left >= right or top >= bottom:
            return
        part = (slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left))
        cover = coverage[part]
        below = self.pixels[top:bottom, left:right]
        laid = np.broadcast_to(paint, (*coverage.shape, 3))[part]
        self.pixels[top:bottom, left:right] = below + (laid - below) * cover[..., None]
        if owner is not None:
            self.owner[top:bottom, left:right][cover >= 0.5] = owner


def finish(pixels: Field, light: Field, noise: Field) -> NDArray[np.uint8]:
    """Bytes of a painted image: times light (broadcastable), plus noise, rounded and clipped."""
    return np.floor(np.clip((pixels * light + noise) * 255.0 + 0.5, 0.0, 255.0)).astype(np.uint8)
