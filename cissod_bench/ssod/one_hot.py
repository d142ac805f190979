"""Sums by class as products with a table of zeros and ones.

`index_add_` and `scatter_add_` add in an order that changes from one run to the next on a GPU; a product does not.
"""

import torch
from torch import Tensor


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, classes) table with a one at the class of each of (N,) int64 labels; the host waits for nothing."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(dtype)
