"""Class-rebalancing sampling (CrS), paper sec. 3.4: how often an unlabelled image comes up, from its pseudo labels."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import UserError

Int = NDArray[np.int64]
Float = NDArray[np.float64]


def class_factors(images_with_class: Int, total_images: float, epsilon: float) -> Float:
    """`S_i = max(1, sqrt(epsilon * (N_l + N_u) / m_i))`, eq. (10).

    Args:
        images_with_class: (n,) number m_i of images that hold class i, labelled or by pseudo label.
        total_images: N_l + N_u.
        epsilon: `gamma * t / N_t`, rising over the generations.

    Returns:
        (n,) factors >= 1; 1 for a class in no image at all.
    """
    counts = np.maximum(images_with_class, 1)
    return np.where(images_with_class > 0, np.maximum(1.0, np.sqrt(epsilon * total_images / counts)), 1.0)


def image_factors(num_images: int, images: Int, classes: Int, margins: Float, factors: Float) -> Float:
    """`max(1, max_j S_c(j) * (p_j - theta_c(j)))` over the pseudo labels j of each image, eq. (11).

    Args:
        num_images: number of unlabelled images.
        images: (P,) position of each pseudo label's image.
        classes: (P,) its class.
        margins: (P,) its score above its class's threshold.
        factors: (n,) class factors.

    Returns:
        (num_images,) factors >= 1; 1 for an image without pseudo labels.
    """
    result = np.ones(num_images)
    np.maximum.at(result, images, factors[classes] * margins)
    return result


@dataclass
class PseudoLabelPool:
    """The pseudo labels of the most recent visit to each unlabelled image, in columns.

    Rows are appended as images are visited; when they are more than twice those that were needed at the last clean-up,
    the rows of older visits go. A row takes 14 bytes, so 1.7 million images with five labels each take about 250 MB.

    Attributes:
        num_images: number of unlabelled images.
        visit: (num_images,) int32 number of the most recent visit, 0 for an image not visited yet.
        image, row_visit, label, margin: columns of the rows.
        visits: number of visits so far.
    """

    num_images: int
    visit: NDArray[np.int32] = field(init=False)
    image: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    row_visit: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    label: NDArray[np.int16] = field(default_factory=lambda: np.empty(0, np.int16))
    margin: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    visits: int = 0
    clean_rows: int = 100_000

    def __post_init__(self) -> None:
        self.visit = np.zeros(self.num_images, np.int32)

    def add(self, image: Int, counts: Int, label: Int, margin: Float) -> None:
        """Note visits in their order; a visit without pseudo labels empties its image.

        Args:
            image: (V,) position of each visited image.
            counts: (V,) number of its pseudo labels.
            label: (sum of counts,) their classes, visit after visit.
            margin: (sum of counts,) their scores above the thresholds of the moment.
        """
        numbers = np.arange(self.visits + 1, self.visits + 1 + len(image), dtype=np.int32)
        self.visit[image] = numbers  # of several visits to an image in one call the last one stays
        self.visits += len(image)
        self.image = np.concatenate([self.image, np.repeat(image, counts).astype(np.int32)])
        self.row_visit = np.concatenate([self.row_visit, np.repeat(numbers, counts)])
        self.label = np.concatenate([self.label, label.astype(np.int16)])
        self.margin = np.concatenate([self.margin, margin.astype(np.float32)])
        if len(self.image) > 2 * self.clean_rows:
            self.clean()

    def clean(self) -> None:
        """Drop the rows of all but the most recent visit to each image."""
        recent = self.row_visit == self.visit[self.image]
        for name in ("image", "row_visit", "label", "margin"):
            setattr(self, name, getattr(self, name)[recent])
        self.clean_rows = max(100_000, len(self.image))

    @property
    def coverage(self) -> float:
        """Part of the unlabelled images that have been visited."""
        return float((self.visit > 0).mean())

    def images_with_class(self, num_classes: int) -> Int:
        """(n,) number of unlabelled images with a pseudo label of each class."""
        return np.bincount(self.pairs(num_classes)[1], minlength=num_classes).astype(np.int64)

    def pairs(self, num_classes: int) -> tuple[Int, Int]:
        """Images and classes that their pseudo labels have, each pair once."""
        self.clean()
        images, classes = np.divmod(np.unique(self.image.astype(np.int64) * num_classes + self.label), num_classes)
        return images, classes

    def images_with_labels(self) -> int:
        """Number of unlabelled images with any pseudo label."""
        self.clean()
        return len(np.unique(self.image))

    def state(self) -> dict[str, NDArray[np.generic] | int]:
        """Everything that `restore` needs, for a checkpoint."""
        self.clean()
        return {
            "visit": self.visit,
            "image": self.image,
            "row_visit": self.row_visit,
            "label": self.label,
            "margin": self.margin,
            "visits": self.visits,
        }

    def restore(self, state: dict[str, NDArray[np.generic] | int]) -> None:
        """Go back to a saved state.

        Raises:
            UserError: the state of a pool over another number of images.
        """
        visit = np.asarray(state["visit"])
        if len(visit) != self.num_images:
            raise UserError(
                f"The checkpoint's pseudo-label pool is of {len(visit)} unlabelled images, the split has "
                f"{self.num_images}: it belongs to another split."
            )
        for name, value in state.items():
            setattr(self, name, value)


def generation_factors(
    pool: PseudoLabelPool, labeled_with_class: Int, num_labeled: int, epsilon: float, count_only_pseudo: bool = False
) -> tuple[Float, Float]:
    """Repeat factors of the next generation, of the classes and of all unlabelled images.

    Args:
        pool: pseudo labels of the images visited so far.
        labeled_with_class: (n,) number of labelled images that hold each class.
        num_labeled: N_l.
        epsilon: `gamma * t / N_t`.
        count_only_pseudo: N_u counts images with pseudo labels only (release) instead of all (paper).

    Returns:
        (n,) and (N_u,) factors >= 1.
    """
    present = labeled_with_class + pool.images_with_class(len(labeled_with_class))
    unlabeled = pool.images_with_labels() if count_only_pseudo else pool.num_images
    factors = class_factors(present, num_labeled + unlabeled, epsilon)
    images = image_factors(
        pool.num_images,
        pool.image.astype(np.int64),
        pool.label.astype(np.int64),
        pool.margin.astype(np.float64),
        factors,
    )
    return factors, images


def class_copies(pool: PseudoLabelPool, factors: Float, num_classes: int) -> Float:
    """How often images with a pseudo label of each class occur per epoch of D_u, on average.

    Args:
        pool: pseudo labels.
        factors: (N_u,) repeat factors of the images; each comes up ceil(factor) times.
        num_classes: n.

    Returns:
        (n,) means, NaN for a class without pseudo labels.
    """
    images, classes = pool.pairs(num_classes)
    totals = np.bincount(classes, np.ceil(factors[images]), minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return totals / np.bincount(classes, minlength=num_classes)
