"""Sums per class as matrix products with one-hot labels.

`index_add_` and `scatter_add_` add in an order that changes from one run to the next on a GPU; a matrix product does
not.
"""

import torch
from torch import Tensor


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, classes) one-hot rows of (N,) int64 labels, without waiting for the device."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(dtype)
