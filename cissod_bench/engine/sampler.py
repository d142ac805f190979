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

READ_AHEAD = 16
"""Batches by which loader workers may be ahead of training: two for each of up to eight workers."""
Indices = NDArray[np.int64]
Factors = NDArray[np.floating]


class ShuffledStream:
    """Endless passes over some images, each pass in an order of its own and without replacement.

    An image with repeat factor r comes up ceil(r) times in a pass (mmdet's and the release's convention).
    """

    def __init__(self, images: Indices, factors: Factors, key: tuple[int, ...]) -> None:
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
    """Draws from a `SeededConcatDataset` of the labelled and the unlabelled images, batch after batch, without end.

    A draw is encoded as `index + len(dataset) * number`, where no two draws of a run, on any rank, have one number.

    All images of a batch have the same orientation (wide or tall), as in mmdet's `GroupMultiSourceSampler`: a batch
    takes an orientation in proportion to the number of images that have it.

    Args:
        dataset: D_l and D_u behind each other.
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
        self._wide_fraction = float(np.concatenate(self._wide).mean())
        factors: Factors = np.ones(len(self._wide[0]))
        if labeled_repeat is not None:
            factors = labeled_repeat_factors(dataset.datasets[0], labeled_repeat)
        self._labeled = self._make_streams(0, factors, start=0)
        self.segments: list[tuple[int, Factors]] = [(0, np.ones(len(self._wide[1]), np.float32))]
        self._place()

    def repeat_unlabeled(self, factors: Factors, done: int) -> None:
        """Use other repeat factors, (N_u,), for the unlabelled images from batch `done + READ_AHEAD` on.

        Loader workers read ahead, so the next batch may have been taken long ago; a fixed distance gives the same
        batches with any number of workers. Earlier factors are kept as long as a run may resume in their time.
        """
        start = done + READ_AHEAD
        if start < self.next_batch:
            raise ValueError(f"Loader workers are {self.next_batch - done} batches ahead, more than {READ_AHEAD}.")
        self.segments.append((start, factors.astype(np.float32)))
        current = max(index for index, (begin, _) in enumerate(self.segments) if begin <= done)
        self.segments = self.segments[current:]
        self._place()

    def restore(self, segments: list[tuple[int, Factors]]) -> None:
        """Take over the repeat factors of a saved run, whose batch `skip` has to go to next."""
        self.segments = segments

    def _place(self) -> None:
        """Stand before batch `next_batch` in the segment that it lies in."""
        current = max(index for index, (start, _) in enumerate(self.segments) if start <= self.next_batch)
        start, factors = self.segments[current]
        self._until = self.segments[current + 1][0] if current + 1 < len(self.segments) else None
        self._streams = [self._labeled, self._make_streams(1, factors, start)]
        # Items taken of each stream, source x orientation; a new segment starts its unlabelled streams anew.
        self._taken = np.stack([self._consumed(0, 0), self._consumed(1, start)])

    def _consumed(self, source: int, start: int) -> Indices:
        """(2,) items of a source taken by orientation in the batches from `start` to `next_batch`."""
        batches = self.next_batch - start
        wide = int(self._orientations(start, batches).sum())
        return np.array([batches - wide, wide]) * self.per_source[source] * self.world_size

    def _make_streams(self, source: int, factors: Factors, start: int) -> list[ShuffledStream]:
        """Streams by orientation; a source without images of an orientation gives any of its images."""
        streams = []
        for orientation in (0, 1):
            chosen = self._wide[source] == bool(orientation)
            if not chosen.any():
                chosen = np.ones_like(chosen)
            key = (self.seed, source, orientation, start)
            streams.append(ShuffledStream(self._images[source][chosen], factors[chosen], key))
        return streams

    def _orientations(self, start: int, count: int) -> NDArray[np.int64]:
        """0 (tall) or 1 (wide) for the batches `start` to `start + count`."""
        generator = np.random.PCG64([self.seed, 2])
        generator.advance(start)
        uniform = np.random.Generator(generator).random(count)
        return (uniform < self._wide_fraction).astype(np.int64)

    def _next_indices(self) -> list[int]:
        if self.next_batch == self._until:
            self._place()
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
        """Draws of this rank, batch after batch, from where the sampler stands."""
        while True:
            first = (self.next_batch * self.world_size + self.rank) * self.batch_size
            for number, index in enumerate(self._next_indices(), start=first):
                yield index + len(self) * number

    def skip(self, num_samples: int) -> None:
        """Go to where this rank has taken `num_samples` since the start of the run (mmengine calls this on resume)."""
        self.next_batch = num_samples // self.batch_size
        self._place()

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
