"""Random numbers as a function of the position in a run, so that no generator state has to be saved.

Augmentation depends on the seed and on the number of the sample in the run, not on loader workers; RoI sampling and box
jitter depend on the seed and the iteration. So a run is the same with any number of workers, and a resumed run equals
an uninterrupted one.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook


def derived_seed(*parts: int | str) -> int:
    """A 32-bit seed that depends on all parts and nothing else."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@contextlib.contextmanager
def preserved_randomness() -> Iterator[None]:
    """Restore all random number generators after the block."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


class IterationSeedHook(Hook):
    """Seeds every generator before each iteration, by rank.

    Args:
        seed: the run's seed.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed."""
        seed = derived_seed(self.seed, "iteration", runner.iter, get_rank())
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
