"""Which pseudo boxes CReST promotes to labels of its next generation, and how often their images are sampled."""

import numpy as np
from numpy.typing import NDArray

from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes
from cissod_bench.ssod.data.repeat_factors import repeat_factors


def keep_rates(labeled_boxes: NDArray[np.integer], alpha: float) -> NDArray[np.float64]:
    """`mu_c = (N_(n+1-r) / N_(1))^alpha` of the class with the r-th most labelled boxes (CReST, eq. 1).

    Args:
        labeled_boxes: (n,) number of labelled boxes of each class in any order; 0 counts as 1.
        alpha: exponent.

    Returns:
        (n,) rates in (0, 1].
    """
    counts = np.maximum(labeled_boxes, 1)
    most_first = np.argsort(-counts, kind="stable")
    rates = np.empty(len(counts))
    rates[most_first] = (counts[most_first[::-1]] / counts.max()) ** alpha
    return rates


def pick(labels: NDArray[np.integer], scores: NDArray[np.floating], rates: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Keep the best `floor(mu_c * P_c)` of the P_c predictions of each class.

    Args:
        labels: (P,) predicted classes.
        scores: (P,) scores; of equal ones the first in the table is the better one.
        rates: (n,) rates mu_c.

    Returns:
        (P,) whether each is kept.
    """
    predicted = np.bincount(labels, minlength=len(rates))
    quota = np.floor(rates * predicted + 1e-9)  # a rate is a power: 0.2 * 5 may lie a rounding error below 1
    order = np.lexsort((-scores, labels))
    place = np.arange(len(labels)) - (np.cumsum(predicted) - predicted)[labels[order]]
    kept = np.empty(len(labels), dtype=bool)
    kept[order] = place < quota[labels[order]]
    return kept


def union_factors(
    labeled: list[list[int]], num_unlabeled: int, joined: PseudoBoxes, threshold: float
) -> NDArray[np.float64]:
    """Repeat factors over D_l and the unlabelled images that are promoted to it.

    Args:
        labeled: classes of each labelled image.
        num_unlabeled: N_u.
        joined: boxes of the promoted images.
        threshold: oversampling threshold t, see `repeat_factors`.

    Returns:
        (N_l + N_u,) factors: 0 for unlabelled images that are not promoted, else at least 1.
    """
    images, starts = np.unique(joined.image, return_index=True)
    factors = np.zeros(len(labeled) + num_unlabeled)
    members = np.concatenate([np.arange(len(labeled)), len(labeled) + images])
    classes = [each.tolist() for each in np.split(joined.label, starts[1:])] if len(images) else []
    factors[members] = repeat_factors([*labeled, *classes], threshold)
    return factors
