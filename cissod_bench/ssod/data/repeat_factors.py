"""Image repeat factors: how often an image comes up in one pass through its source."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def repeat_factors(image_classes: Sequence[Sequence[int]], threshold: float) -> NDArray[np.float64]:
    """Repeat factor sampling (Gupta et al., CVPR 2019, LVIS, sec. 4.4).

    `f_c` is the fraction of images that hold class c, `r_c = max(1, sqrt(threshold / f_c))`, and the factor of an image
    is the largest `r_c` of its classes; an image without classes has 1.

    Args:
        image_classes: for each image its classes (repetitions do not count). Crowd boxes count, as in mmdet.
        threshold: oversampling threshold t; classes in a larger fraction of images are not repeated.

    Returns:
        (N,) factors >= 1, not rounded.
    """
    images = np.repeat(np.arange(len(image_classes)), [len(classes) for classes in image_classes])
    classes = np.asarray([name for names in image_classes for name in names], dtype=np.int64)
    factors = np.ones(len(image_classes))
    if classes.size == 0:
        return factors
    images, classes = np.unique(np.stack([images, classes]), axis=1)
    fraction = np.bincount(classes) / len(image_classes)
    with np.errstate(divide="ignore", invalid="ignore"):  # of classes that occur nowhere
        class_factors = np.maximum(1.0, np.sqrt(threshold / fraction))
    np.maximum.at(factors, images, class_factors[classes])
    return factors
