"""Batches of images of one size, for detection: padding would change what is found."""

from collections.abc import Iterator

import numpy as np
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray
from torch.utils.data import Sampler


def batches_of_one_size(sizes: NDArray[np.integer], batch_size: int) -> list[list[int]]:
    """Positions of all images in batches of equal size.

    Args:
        sizes: (N, 2) width and height of each image.
        batch_size: largest number of images in a batch.
    """
    _, size_number = np.unique(sizes, axis=0, return_inverse=True)
    order = np.argsort(size_number.ravel(), kind="stable")
    ends = np.flatnonzero(np.diff(size_number.ravel()[order])) + 1
    return [
        group[start : start + batch_size].tolist()
        for group in np.split(order, ends)
        for start in range(0, len(group), batch_size)
    ]


def image_sizes(dataset: BaseDataset, images: NDArray[np.integer]) -> NDArray[np.int64]:
    """(N, 2) width and height of some images of an mmdet data set."""
    infos = map(dataset.get_data_info, images.tolist())
    return np.array([(info["width"], info["height"]) for info in infos], dtype=np.int64).reshape(-1, 2)


class OneSizeBatches(Sampler[list[int]]):
    """mmengine's batch sampler of a validation loader.

    Args:
        sampler: images of this process, of an mmdet data set.
        batch_size: largest number of images in a batch.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        images = np.fromiter(sampler, dtype=np.int64)
        found = batches_of_one_size(image_sizes(sampler.dataset, images), batch_size)  # type: ignore[attr-defined]
        self._batches = [images[positions].tolist() for positions in found]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
