"""Selection of the labelled images. Pure functions on columns, without a random number generator.

Candidates are ordered by a keyed hash of their image id and taken from the front. So the result depends only on the
protocol version, the task, the seed and the images themselves: not on the order of a file, the version of Python or
NumPy, or the number of processes. A larger fraction only adds images.

Protocol: paper sec. 3.1 and 4.1. Scenario 1: D_m and D_s. Scenario 2: one long-tailed D_l that covers every class.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.coco.columns import Bool, Columns, Int32, Int64
from cissod_bench.tasks.records import MinoritySelection, SelectionRule

Counts = npt.NDArray[np.int64]

_NONE: Int64 = np.empty(0, np.int64)
_BUCKETS = 256
_BLOCK = 1 << 20
_CACHED = 1 << 16  # boxes whose intermediate results fit into the processor's cache


@dataclass(frozen=True)
class SelectionKey:
    """What the order of candidates depends on, apart from their ids."""

    protocol: int
    task: str
    seed: int

    def order(self, image_ids: Int64, role: str) -> Int64:
        """Positions in `image_ids` in the order in which they are candidates for `role`, int64 `[N]`.

        Ordered by 8-byte BLAKE2b over protocol version, task, seed, role and image id; equal hashes by id.
        """
        prefix = hashlib.blake2b(f"{self.protocol}\0{self.task}\0{self.seed}\0{role}\0".encode(), digest_size=8)
        digests = []
        for image_id in image_ids.tolist():
            keyed = prefix.copy()
            keyed.update(b"%d" % image_id)
            digests.append(keyed.digest())
        order: Int64 = np.lexsort((image_ids, np.frombuffer(b"".join(digests), ">u8")))
        return order


@dataclass(frozen=True)
class Pairs:
    """Which class is in which image: one entry for each image and class that occur together, by image, then class.

    Attributes:
        image: row of the image, int32 `[P]`.
        label: label of the class, int32 `[P]`.
        boxes: boxes that count for a floor (not crowd), int32 `[P]`; 0 if the class occurs only as a crowd.
        num_images: number of images, including those without any box.
        num_classes: number of classes.
    """

    image: Int32
    label: Int32
    boxes: Int32
    num_images: int
    num_classes: int

    def only(self, keep: Bool) -> "Pairs":
        """The pairs where `keep` is true."""
        return Pairs(self.image[keep], self.label[keep], self.boxes[keep], self.num_images, self.num_classes)

    def images(self, classes: Bool | None = None) -> Int64:
        """Rows of the images in at least one pair, of these classes (bool `[C]`) if given; ascending, int64."""
        found = np.zeros(self.num_images, np.bool_)
        found[self.image if classes is None else self.image[classes[self.label]]] = True
        return np.flatnonzero(found)

    def images_per_class(self) -> Counts:
        """Number of images of each class, int64 `[C]`. Crowds count, as when mmdet counts the classes of an image."""
        return _summed(self.label, None, self.num_classes)

    def boxes_per_class(self) -> Counts:
        """Number of boxes of each class, crowds excluded, int64 `[C]`."""
        return _summed(self.label, self.boxes, self.num_classes)

    def images_per_group(self, group_of_label: Int32, num_groups: int) -> Counts:
        """Number of images with at least one class of each group, int64 `[num_groups]`.

        Args:
            group_of_label: group of each class, int32 `[C]`.
            num_groups: number of groups.
        """
        found = np.zeros((self.num_images, num_groups), np.bool_)
        found[self.image, group_of_label[self.label]] = True
        counts: Counts = found.sum(axis=0)
        return counts


def _summed(cells: Int32, counts: Int32 | None, length: int) -> Counts:
    """Sum of `counts` in each of `length` cells, or how often each cell occurs.

    In blocks, since NumPy first converts cells to int64 and counts to float64, in which sums below 2**53 are exact.
    """
    total = np.zeros(length, np.int64)
    for start in range(0, len(cells), _BLOCK):
        block = slice(start, start + _BLOCK)
        weights = None if counts is None else counts[block]
        total += np.bincount(cells[block], weights, minlength=length).astype(np.int64)
    return total


def pairs_of(columns: Columns, use: Bool) -> Pairs:
    """Collect the pairs of image and class over the boxes where `use` is true."""
    num_classes = len(columns.categories)
    # Image, class and crowd flag in one number: sorting it in place takes a third of the memory of sorting by key, and
    # half the time if 32 bits are enough.
    small = 2 * columns.num_images * num_classes < 2**32
    keys: npt.NDArray[Any] = np.empty(np.count_nonzero(use), np.uint32 if small else np.uint64)
    used = 0
    for start in range(0, len(use), _CACHED):
        part = slice(start, start + _CACHED)
        block = columns.box_image[part].astype(keys.dtype)
        block *= num_classes
        block += columns.box_label[part].astype(keys.dtype)
        block *= 2
        block += columns.crowd[part]
        block = block[use[part]]
        keys[used : used + len(block)] = block
        used += len(block)
    keys.sort()
    crowd = np.flatnonzero(keys & 1)
    keys //= 2
    first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    boxes = np.empty(len(starts), np.int32)
    np.subtract(starts[1:], starts[:-1], out=boxes[:-1], casting="same_kind")
    boxes[-1:] = len(keys) - starts[-1:]
    np.subtract.at(boxes, np.searchsorted(starts, crowd, side="right") - 1, 1)
    image, label = np.divmod(keys[starts], keys.dtype.type(num_classes))
    return Pairs(image.astype(np.int32), label.astype(np.int32), boxes, columns.num_images, num_classes)


@dataclass(frozen=True)
class Selection:
    """Rows of the labelled images, ascending, int64.

    Attributes:
        majority: D_m; an image selected for both counts as D_s. Scenario 2: all of D_l.
        minority: D_s; empty in scenario 2.
        majority_drawn: number of images selected for D_m before those of D_s were removed.
        majority_candidates: number of images that D_m was selected from.
        coverage: scenario 2: number of images of D_l that were selected for the floor of a class.
    """

    majority: Int64
    minority: Int64
    majority_drawn: int
    majority_candidates: int
    coverage: int = 0


def select_labeled(
    pairs: Pairs, image_ids: Int64, available: Bool, minority: Bool, rule: SelectionRule, key: SelectionKey
) -> Selection:
    """SelectionRule D_l by the rules of the task.

    Args:
        pairs: which class is in which image, over the images that may be selected.
        image_ids: ids of all images, int64 `[N]`.
        available: images that may be selected (not held out for validation), bool `[N]`.
        minority: minority classes, bool `[C]`; unused in scenario 2.
        rule: fraction or count, floor, and how to select.
        key: protocol version, task and seed.
    """
    if rule.coverage:
        return _select_covering(pairs, image_ids, available, rule, key)
    candidates = pairs.images(~minority)
    wanted = labeled_count(len(candidates), rule)
    majority = _NONE
    if wanted:
        majority = _ordered(candidates, image_ids, key, "majority", pairs if rule.stratify else None)[:wanted]
    rare = pairs.only(minority[pairs.label] & (pairs.boxes > 0))
    if rule.floor > 0 and len(rare.image):
        taken = select_floor(rare, image_ids, rule.floor, rule.minority_draw, key, "minority")
    else:
        taken = _NONE
    return Selection(np.setdiff1d(majority, taken), taken, len(majority), len(candidates))


def select_annotated(pairs: Pairs, minority: Bool) -> Selection:
    """All images with a box: D_s are those with a minority class, so no label of D_m is one that the protocol drops."""
    rare, candidates = pairs.images(minority), pairs.images(~minority)
    return Selection(np.setdiff1d(candidates, rare), rare, len(candidates), len(candidates))


def _select_covering(
    pairs: Pairs, image_ids: Int64, available: Bool, rule: SelectionRule, key: SelectionKey
) -> Selection:
    """Scenario 2: the images that cover every class, filled up in hash order to the fraction of all images."""
    candidates = np.flatnonzero(available)
    ordered = _ordered(candidates, image_ids, key, "labeled", pairs if rule.stratify else None)
    covering = _NONE
    if rule.floor > 0 and pairs.boxes.any():
        covering = select_floor(pairs.only(pairs.boxes > 0), image_ids, rule.floor, "needed", key, "labeled")
    filling = ordered[~np.isin(ordered, covering)]
    missing = max(0, labeled_count(len(candidates), rule) - len(covering))
    labeled = np.sort(np.concatenate([covering, filling[:missing]]))
    return Selection(labeled, _NONE, len(labeled), len(candidates), len(covering))


def labeled_count(candidates: int, rule: SelectionRule) -> int:
    """Number of images to select: `count`, or the fraction of the candidates rounded half up, at most all of them."""
    if rule.count is not None:
        return min(rule.count, candidates)
    # The fraction as written, 1/10, not the nearest binary number.
    return min(candidates, int(candidates * Fraction(str(rule.fraction)) + Fraction(1, 2)))


def select_floor(
    pairs: Pairs, image_ids: Int64, floor: int, how: MinoritySelection, key: SelectionKey, role: str
) -> Int64:
    """Walk over the images in hash order until every class has `floor` boxes, or all the boxes there are.

    `needed` takes an image only if it holds a class that is still under the floor, `uniform` takes every image.

    Args:
        pairs: only classes that have a floor, only pairs with at least one box that counts.
        image_ids: ids of all images, int64 `[N]`.
        floor: boxes per class.
        how: which images to take.
        key: protocol version, task and seed.
        role: what the images are selected for, part of the hash.

    Returns:
        Rows of the images taken, ascending.
    """
    images = pairs.images()
    position = np.zeros(pairs.num_images, np.int64)
    position[images[key.order(image_ids[images], role)]] = np.arange(len(images))
    early = _within_floor(pairs, (position * _BUCKETS // len(images)).astype(np.int32), floor)
    # By class, then by place.
    walk = np.argsort(early.label * np.int64(len(images)) + position[early.image])
    label, image, boxes = early.label[walk], early.image[walk], early.boxes[walk]
    place = position[image]
    before = np.cumsum(boxes) - boxes
    starts = np.searchsorted(label, np.arange(pairs.num_classes))  # of each class
    before -= np.append(before, 0)[starts][label]  # boxes of the class in the images before
    wanted = before < floor
    if how == "uniform":
        taken: Int64 = images[position[images] <= place[wanted].max()]
        return taken
    # Every image that holds a class under its floor is taken, so the images wanted above are the only candidates.
    # One of them is skipped if images taken for other classes have filled its class by then.
    return _walk_needed(image[wanted], place[wanted], pairs, floor)


def _within_floor(pairs: Pairs, bucket: Int32, floor: int) -> Pairs:
    """The pairs up to the bucket in which their class reaches the floor: few for a frequent class.

    Args:
        pairs: pairs of image and class.
        bucket: the part of the walk, out of `_BUCKETS` equal ones, that an image is in, int32 `[N]`.
        floor: boxes per class.
    """
    bucket = bucket[pairs.image]
    boxes = _summed(pairs.label * np.int32(_BUCKETS) + bucket, pairs.boxes, pairs.num_classes * _BUCKETS)
    last = (np.cumsum(boxes.reshape(pairs.num_classes, _BUCKETS), axis=1) < floor).sum(axis=1)
    return pairs.only(bucket <= last[pairs.label])


def _walk_needed(image: Int32, place: Int64, pairs: Pairs, floor: int) -> Int64:
    candidates = image[np.argsort(place, kind="stable")]
    have = [0] * pairs.num_classes
    starts = np.searchsorted(pairs.image, candidates)  # of the same type, or NumPy converts all of `pairs`
    ends = np.searchsorted(pairs.image, candidates, side="right")
    labels, boxes = pairs.label, pairs.boxes
    taken = set()
    for row, start, end in zip(candidates.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if row in taken:
            continue
        classes = labels[start:end].tolist()
        if any(have[entry] < floor for entry in classes):
            taken.add(row)
            for entry, count in zip(classes, boxes[start:end].tolist(), strict=True):
                have[entry] += count
    return np.array(sorted(taken), np.int64)


def _ordered(candidates: Int64, image_ids: Int64, key: SelectionKey, role: str, strata: Pairs | None) -> Int64:
    """Candidate rows in the order of selection.

    With `strata`, images are grouped by the rarest of their classes, and every group is spread evenly over the order:
    the j-th of n images of a group comes at the relative place (j + 1/2) / n. So each front part of the order holds
    the groups in proportion, and a larger part still only adds images.
    """
    ordered = candidates[key.order(image_ids[candidates], role)]
    if strata is None or not len(ordered):
        return ordered
    frequency = strata.images_per_class()
    rarity = np.lexsort((np.arange(strata.num_classes), frequency))
    rank = np.empty(strata.num_classes, np.int64)
    rank[rarity] = np.arange(strata.num_classes)
    group_of = np.full(strata.num_images, strata.num_classes)
    np.minimum.at(group_of, strata.image, rank[strata.label])
    group = group_of[ordered]
    by_group = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=strata.num_classes + 1)
    starts = np.cumsum(sizes) - sizes
    within = np.empty(len(ordered), np.int64)
    within[by_group] = np.arange(len(ordered)) - starts[group[by_group]]
    # (2 j + 1) / (2 n) compared exactly would need fractions; float64 orders any two of them right below 10^7 images.
    return ordered[np.argsort((2 * within + 1) / (2 * sizes[group]), kind="stable")]


def hold_out(image_ids: Int64, folds: int, fold: int, key: SelectionKey) -> Bool:
    """Images of one of `folds` equal parts, held out where the data has no validation part of its own, bool `[N]`."""
    part = np.empty(len(image_ids), np.int64)
    part[key.order(image_ids, "folds")] = np.arange(len(image_ids)) % folds
    held: Bool = part == fold
    return held
