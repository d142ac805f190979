"""Endless batches of labelled and unlabelled images, with image repeat factors, as a pure function of the batch number.

Batch k of a run is decided by the seed, k and the repeat factors in force at k; neither the process, the number of
loader workers nor what was read before matters. So a run resumes at batch k without reading the batches before it, and
repeat factors change between two batches without rebuilding a loader.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from mmengine.dist import get_dist_info
from numpy.typing import NDArray
from torch.utils.data import Sampler

from cissod_bench.ssod.data.pseudo_boxes import ImageLabels, PromotedLabels
from cissod_bench.ssod.data.repeat_factors import repeat_factors

READ_AHEAD = 16
"""Batches by which loader workers may be ahead of training: two for each of up to eight workers."""
Indices = NDArray[np.int64]
Factors = NDArray[np.floating]


class Segment(NamedTuple):
    """What holds for a source from batch `start` on: how often each image comes up in a pass, and promoted labels."""

    start: int
    copies: NDArray[np.int32]
    labels: PromotedLabels | None = None


class LabeledDraw(NamedTuple):
    """An unlabelled image sampled as a labelled one, with its promoted labels."""

    code: int
    labels: ImageLabels


class ShuffledStream:
    """Endless passes over some images, each pass in an order of its own and without replacement.

    Args:
        images: (N,) the images.
        copies: (N,) how often each comes up in a pass.
        key: what the orders follow from.
    """

    def __init__(self, images: Indices, copies: NDArray[np.integer], key: tuple[int, ...]) -> None:
        self._images = np.repeat(images, copies)
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


class SemiSampler(Sampler[Any]):
    """Draws from a `SeededConcatDataset` of the labelled and the unlabelled images, batch after batch, without end.

    A draw is encoded as `index + len(dataset) * number`, where no two draws of a run, on any rank, have one number. The
    ranks share out the batch that one process with the sum of their batches would take, with its numbers. An unlabelled
    image that comes up among the labelled ones brings its labels along (`LabeledDraw`), so that no loader worker,
    however far it reads ahead, has to know which labels hold.

    An image with repeat factor r comes up ceil(r) times in a pass through its source (mmdet's and the release's
    convention), and not at all with factor 0.

    All images of a batch have the same orientation (wide or tall), as in mmdet's `GroupMultiSourceSampler`: a batch
    takes an orientation in proportion to the images of all sources that have it, each as often as a pass has it.

    Args:
        dataset: D_l and D_u behind each other, or D_l alone.
        batch_size: images per batch on one rank.
        source_ratio: images of each source in a batch; their sum is `batch_size`.
        seed: the run's seed; the same on all ranks.
        labeled_repeat: oversampling threshold of repeat factor sampling on D_l; None for uniform sampling.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        source_ratio: tuple[int, ...],
        seed: int = 0,
        labeled_repeat: float | None = None,
    ) -> None:
        if sum(source_ratio) != batch_size or len(dataset.datasets) != len(source_ratio):
            raise ValueError(
                f"batch_size {batch_size} is not the sum of source_ratio {source_ratio} over "
                f"{len(dataset.datasets)} sources"
            )
        self.rank, self.world_size = get_dist_info()
        self.batch_size, self.per_source, self.seed = batch_size, tuple(source_ratio), seed
        self.next_batch = 0
        self._wide = np.concatenate([_is_wide(source) for source in dataset.datasets])
        # Unlabelled images follow the labelled ones in both sources; in the first they have promoted labels.
        self._num_labeled = len(dataset.datasets[0])
        starts = (0, self._num_labeled)[: len(source_ratio)]
        self._images = [np.arange(start, len(self._wide)) for start in starts]
        factors: list[Factors] = [np.ones(len(source)) for source in dataset.datasets]
        if labeled_repeat is not None:
            factors[0] = labeled_repeat_factors(dataset.datasets[0], labeled_repeat)
        self._segments = [[Segment(0, _copies(each))] for each in factors]
        self._wide_parts = [(0, self._wide_part(0))]
        self._place()

    def repeat(self, source: int, factors: Factors, start: int, labels: PromotedLabels | None = None) -> None:
        """Use other repeat factors for a source from batch `start` on, instead of what was to hold from there.

        Batches are drawn before they are needed, since loader workers read ahead: a change that is found out when
        `done` iterations are over has to start at `done + READ_AHEAD`, a fixed distance, so that the batches are the
        same with any number of workers. A change that is known before may start where it likes.

        Args:
            source: 0 for labelled, 1 for unlabelled images.
            factors: (N,) factor of each of its images; 0 leaves an image out. For labelled images it may be
                (N_l + N_u,): unlabelled images with a factor above 0 are promoted.
            start: number of the first batch.
            labels: labels of the promoted images, by position among the unlabelled images.

        Raises:
            ValueError: the batch has been drawn already, or no image is left.
        """
        if start < self.next_batch:
            raise ValueError(
                f"Repeat factors for batch {start} come too late: loader workers have drawn {self.next_batch} batches, "
                f"more than {READ_AHEAD} ahead."
            )
        copies = _copies(factors)
        if not copies.any():
            raise ValueError(f"No image is left in source {source} from batch {start} on.")
        kept = [segment for segment in self._since(source, self.next_batch - READ_AHEAD) if segment.start < start]
        self._segments[source] = [*kept, Segment(start, copies, labels)]
        changes = {segment.start for segments in self._segments for segment in segments if segment.start >= start}
        before = [part for part in self._wide_parts if part[0] < start]
        self._wide_parts = before + [(change, self._wide_part(change)) for change in sorted(changes)]
        self._place()

    def state(self, done: int) -> dict[str, list[Any]]:
        """What a run that resumes after `done` iterations has to `restore`."""
        segments = [self._since(source, done) for source in range(len(self._segments))]
        return {"segments": segments, "wide_parts": list(self._wide_parts)}

    def restore(self, state: dict[str, list[Any]]) -> None:
        """Take over the repeat factors of a saved run; `skip` has to follow."""
        self._segments = [list(segments) for segments in state["segments"]]
        self._wide_parts = list(state["wide_parts"])

    def _since(self, source: int, batch: int) -> list[Segment]:
        """The segment of a source that `batch` lies in, and those after it."""
        segments = self._segments[source]
        current = max((index for index, segment in enumerate(segments) if segment.start <= batch), default=0)
        return segments[current:]

    def _wide_part(self, batch: int) -> float:
        """Part of the wide images among all that come up in a pass through all sources, as they hold at a batch."""
        wide = total = 0
        for source, images in enumerate(self._images):
            copies = self._since(source, batch)[0].copies
            wide += int(copies[self._wide[images[: len(copies)]]].sum())
            total += int(copies.sum())
        return wide / total

    def _place(self) -> None:
        """Stand before batch `next_batch` in the segments that it lies in."""
        ahead = [self._since(source, self.next_batch) for source in range(len(self._segments))]
        self._until = min((segments[1].start for segments in ahead if len(segments) > 1), default=None)
        self._labels = ahead[0][0].labels
        self._streams = [self._make_streams(source, segments[0]) for source, segments in enumerate(ahead)]
        # Items taken of each stream, source x orientation; a new segment starts the streams of its source anew.
        self._taken = np.stack([self._consumed(source, segments[0].start) for source, segments in enumerate(ahead)])

    def _consumed(self, source: int, start: int) -> Indices:
        """(2,) items of a source taken by orientation in the batches from `start` to `next_batch`."""
        batches = self.next_batch - start
        wide = int(self._orientations(start, batches).sum())
        return np.array([batches - wide, wide]) * self.per_source[source] * self.world_size

    def _make_streams(self, source: int, segment: Segment) -> list[ShuffledStream]:
        """Streams by orientation; a source without images of an orientation gives any of its images."""
        images = np.flatnonzero(segment.copies)
        numbers, copies = self._images[source][images], segment.copies[images]
        streams = []
        for orientation in (0, 1):
            chosen = self._wide[numbers] == bool(orientation)
            if not chosen.any():
                chosen = np.ones_like(chosen)
            key = (self.seed, source, orientation, segment.start)
            streams.append(ShuffledStream(numbers[chosen], copies[chosen], key))
        return streams

    def _orientations(self, start: int, count: int) -> NDArray[np.int64]:
        """0 (tall) or 1 (wide) for the batches `start` to `start + count`."""
        generator = np.random.PCG64([self.seed, 2])
        generator.advance(start)
        uniform = np.random.Generator(generator).random(count)
        starts, parts = zip(*self._wide_parts, strict=True)  # of all batches, since streams count from long ago
        inside = np.searchsorted(starts, np.arange(start, start + count), side="right") - 1
        return (uniform < np.array(parts)[inside]).astype(np.int64)

    def _next_draws(self) -> list[int | LabeledDraw]:
        if self.next_batch == self._until:
            self._place()
        orientation = int(self._orientations(self.next_batch, 1)[0])
        draws: list[int | LabeledDraw] = []
        first = self.next_batch * self.batch_size * self.world_size
        for source, count in enumerate(self.per_source):
            start, whole = int(self._taken[source, orientation]), count * self.world_size
            taken = self._streams[source][orientation].take(start, whole)
            mine = slice(self.rank * count, (self.rank + 1) * count)
            labels = self._labels if source == 0 else None
            numbers = np.arange(first, first + whole)[mine]
            for index, code in zip(taken[mine].tolist(), (taken[mine] + len(self) * numbers).tolist(), strict=True):
                position = index - self._num_labeled  # among the unlabelled images
                draws.append(code if labels is None or position < 0 else LabeledDraw(code, labels.of(position)))
            self._taken[source, orientation] += whole
            first += whole
        self.next_batch += 1
        return draws

    def __iter__(self) -> Iterator[int | LabeledDraw]:
        """Draws of this rank, batch after batch, from where the sampler stands."""
        while True:
            yield from self._next_draws()

    def skip(self, num_samples: int) -> None:
        """Go to where this rank has taken `num_samples` since the start of the run (mmengine calls this on resume)."""
        self.next_batch = num_samples // self.batch_size
        self._place()

    def __len__(self) -> int:
        """Number of images of all sources."""
        return len(self._wide)

    def set_epoch(self, epoch: int) -> None:
        """Nothing to do: the order of every pass follows from the seed and the pass number."""


def _copies(factors: Factors) -> NDArray[np.int32]:
    return np.ceil(factors).astype(np.int32)


def labeled_repeat_factors(dataset: Any, threshold: float) -> NDArray[np.float64]:
    """(N,) repeat factors of the images of an mmdet data set, see `repeat_factors`."""
    return repeat_factors([dataset.get_cat_ids(index) for index in range(len(dataset))], threshold)


def _is_wide(dataset: Any) -> NDArray[np.bool_]:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return np.fromiter((info["width"] >= info["height"] for info in infos), dtype=bool, count=len(dataset))
