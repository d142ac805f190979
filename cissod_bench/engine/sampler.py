"""Endless batches of labelled and unlabelled images, with image repeat factors, as a pure function of the batch number.

Batch k of a run is decided by the seed, k and the repeat factors in force at k; neither the process, the number of
loader workers nor what was read before matters. So a run resumes at batch k without reading the batches before it, and
repeat factors change between two batches without rebuilding a loader.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from numpy.typing import NDArray
from torch.utils.data import Sampler

from cissod_bench.methods.sampling import repeat_factors

Indices = NDArray[np.int64]


class ShuffledStream:
    """Endless passes over some images, each pass in an order of its own and without replacement.

    An image with repeat factor r comes up ceil(r) times in a pass (mmdet's and the release's convention).
    """

    def __init__(self, images: Indices, factors: NDArray[np.float64], key: tuple[int, ...]) -> None:
        self._images = np.repeat(images, np.ceil(factors).astype(np.int64))
        self._key = key
        self._pass = -1
        self._order = self._images

    def __len__(self) -> int:
        """Length of one pass."""
        return len(self._images)

    def take(self, start: int, count: int) -> Indices:
        """Items `start` to `start + count` of the endless stream."""
        positions = np.arange(start, start + count)
        taken = np.empty(count, dtype=np.int64)
        passes = positions // len(self)
        for number in np.unique(passes):
            inside = passes == number
            taken[inside] = self._order_of(int(number))[positions[inside] % len(self)]
        return taken

    def _order_of(self, number: int) -> Indices:
        if number != self._pass:
            generator = np.random.Generator(np.random.PCG64([*self._key, number]))
            self._order, self._pass = generator.permutation(self._images), number
        return self._order


@DATA_SAMPLERS.register_module()
class SemiSampler(Sampler[int]):
    """Indices into a `ConcatDataset` of the labelled and the unlabelled images, batch after batch, without end.

    All images of a batch have the same orientation (wide or tall), as in mmdet's `GroupMultiSourceSampler`: a batch
    takes an orientation in proportion to the number of images that have it.

    Args:
        dataset: mmengine's `ConcatDataset` of D_l and D_u.
        batch_size: images per batch on one rank.
        source_ratio: labelled and unlabelled images in a batch; their sum is `batch_size`.
        seed: the run's seed; the same on all ranks.
        labeled_repeat: oversampling threshold of repeat factor sampling on D_l; None for uniform sampling.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        source_ratio: tuple[int, int],
        seed: int = 0,
        labeled_repeat: float | None = None,
    ) -> None:
        if sum(source_ratio) != batch_size or len(dataset.datasets) != 2:
            raise ValueError(f"batch_size {batch_size} is not the sum of source_ratio {source_ratio} over two sources")
        self.rank, self.world_size = get_dist_info()
        self.batch_size, self.per_source, self.seed = batch_size, tuple(source_ratio), seed
        self.next_batch = 0
        offsets = [0, len(dataset.datasets[0])]
        self._wide = [_is_wide(source) for source in dataset.datasets]
        self._images = [offset + np.arange(len(wide)) for offset, wide in zip(offsets, self._wide, strict=True)]
        factors: list[NDArray[np.float64]] = [np.ones(len(wide)) for wide in self._wide]
        if labeled_repeat is not None:
            factors[0] = labeled_repeat_factors(dataset.datasets[0], labeled_repeat)
        total = np.concatenate(self._wide)
        self._wide_fraction = float(total.mean())
        self._streams = self._make_streams(factors)
        self._taken = np.zeros((2, 2), dtype=np.int64)  # items taken of each stream: source x orientation

    def _make_streams(self, factors: list[NDArray[np.float64]]) -> list[list[ShuffledStream]]:
        """Streams by source and orientation; a source without images of an orientation gives any of its images."""
        streams = []
        for source, (images, wide) in enumerate(zip(self._images, self._wide, strict=True)):
            by_orientation = []
            for orientation in (0, 1):
                chosen = wide == bool(orientation)
                if not chosen.any():
                    chosen = np.ones_like(wide)
                key = (self.seed, source, orientation)
                by_orientation.append(ShuffledStream(images[chosen], factors[source][chosen], key))
            streams.append(by_orientation)
        return streams

    def _orientations(self, start: int, count: int) -> NDArray[np.int64]:
        """0 (tall) or 1 (wide) for the batches `start` to `start + count`."""
        generator = np.random.PCG64([self.seed, 2])
        generator.advance(start)
        uniform = np.random.Generator(generator).random(count)
        return (uniform < self._wide_fraction).astype(np.int64)

    def _next_indices(self) -> list[int]:
        orientation = int(self._orientations(self.next_batch, 1)[0])
        indices: list[int] = []
        for source, count in enumerate(self.per_source):
            start = int(self._taken[source, orientation])
            taken = self._streams[source][orientation].take(start, count * self.world_size)
            indices += taken[self.rank * count : (self.rank + 1) * count].tolist()
            self._taken[source, orientation] += count * self.world_size
        self.next_batch += 1
        return indices

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank, batch after batch, from where the sampler stands."""
        while True:
            yield from self._next_indices()

    def skip(self, num_samples: int) -> None:
        """Go to where this rank has taken `num_samples` since the start of the run (mmengine calls this on resume)."""
        batches = num_samples // self.batch_size
        wide = int(self._orientations(0, batches).sum())
        self._taken = np.outer(self.per_source, [batches - wide, wide]) * self.world_size
        self.next_batch = batches

    def __len__(self) -> int:
        """Number of images of both sources."""
        return sum(len(images) for images in self._images)

    def set_epoch(self, epoch: int) -> None:
        """Nothing to do: the order of every pass follows from the seed and the pass number."""


def labeled_repeat_factors(dataset: Any, threshold: float) -> NDArray[np.float64]:
    """(N,) repeat factors of the images of an mmdet data set, see `repeat_factors`."""
    return repeat_factors([dataset.get_cat_ids(index) for index in range(len(dataset))], threshold)


def _is_wide(dataset: Any) -> NDArray[np.bool_]:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return np.fromiter((info["width"] >= info["height"] for info in infos), dtype=bool, count=len(dataset))
