"""Boxes on many images in columns: a teacher's pseudo boxes on unlabelled images, and those promoted to labels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PseudoBoxes:
    """Boxes in columns, image by image in rising order.

    Attributes:
        image: (P,) int32 position of each box's image among the unlabelled images.
        label: (P,) int16 class.
        box: (P, 4) float32 x1, y1, x2, y2 in pixels of the original image.
        score: (P,) float32 score.
    """

    image: NDArray[np.int32]
    label: NDArray[np.int16]
    box: NDArray[np.float32]
    score: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: list["PseudoBoxes"]) -> "PseudoBoxes":
        """The boxes of several tables, each image's in the order that they had."""
        none = cls(*(np.empty(shape, kind) for shape, kind in (((0), "i4"), ((0), "i2"), ((0, 4), "f4"), ((0), "f4"))))
        columns = [np.concatenate(column) for column in zip(*(each.columns() for each in [none, *parts]), strict=True)]
        return cls(*columns).rows(np.argsort(columns[0], kind="stable"))

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """The four columns."""
        return self.image, self.label, self.box, self.score

    def rows(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "PseudoBoxes":
        """Some of the boxes."""
        return PseudoBoxes(self.image[chosen], self.label[chosen], self.box[chosen], self.score[chosen])

    def of(self, image: int) -> slice:
        """Rows of an image."""
        first, last = np.searchsorted(self.image, (image, image + 1))
        return slice(int(first), int(last))

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.image)


class ImageLabels(NamedTuple):
    """Labels of one image: (K, 4) boxes in pixels of the original image, (K,) classes, (K,) whether to be ignored."""

    box: NDArray[np.float32]
    label: NDArray[np.int16]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class PromotedLabels:
    """Labels of unlabelled images that are promoted to labelled ones (CReST).

    Attributes:
        boxes: the boxes.
        ignored: (P,) boxes that are neither object nor background.
    """

    boxes: PseudoBoxes
    ignored: NDArray[np.bool_]

    def of(self, image: int) -> ImageLabels:
        """Labels of an image."""
        rows = self.boxes.of(image)
        return ImageLabels(self.boxes.box[rows], self.boxes.label[rows], self.ignored[rows])
