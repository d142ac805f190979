"""Isolate a run, so that it does not affect a notebook or the next run in the same process."""

import contextlib
import gc
import multiprocessing
import os
import warnings
from collections.abc import Iterator

import cv2
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer

from cissod_bench.ssod.randomness import preserved_randomness


@contextlib.contextmanager
def isolated(threads: int) -> Iterator[None]:
    """Restore what mmengine and torch change process-wide: loggers, scopes, seeds, threads, environment.

    Args:
        threads: PyTorch's CPU threads within the block.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(_restore_environment, dict(os.environ))
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        start_method = multiprocessing.get_start_method(allow_none=True)
        stack.callback(multiprocessing.set_start_method, start_method, force=True)
        for name in ("benchmark", "deterministic"):
            stack.callback(setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(preserved_randomness())
        stack.enter_context(own_instances())
        stack.enter_context(imports_apart())
        torch.set_num_threads(threads)
        yield


OWN_FROZEN = 1000
"""More objects than an interpreter freezes by itself; Python 3.12 starts with 375."""


@contextlib.contextmanager
def imports_apart() -> Iterator[None]:
    """Keep what exists already out of garbage collection: mmengine asks for one with every data set it builds.

    Each passes over all of PyTorch and mmdet, a quarter of a second. Whoever has frozen objects is left alone.
    """
    if gc.get_freeze_count() > OWN_FROZEN:
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextlib.contextmanager
def own_instances() -> Iterator[None]:
    """Remove the loggers, message hubs, visualizers and scopes of a run, which mmengine keeps by name for ever."""
    kinds = [MMLogger, MessageHub, DefaultScope, *_with_subclasses(Visualizer)]
    before = {kind: dict(kind._instance_dict) for kind in kinds}
    try:
        yield
    finally:
        for kind in [*kinds, *_with_subclasses(Visualizer)]:
            kept = before.get(kind, {})
            for name in kind._instance_dict.keys() - kept.keys():
                left = kind._instance_dict.pop(name)
                for handler in getattr(left, "handlers", ()):
                    handler.close()


def _with_subclasses(kind: type[ManagerMixin]) -> Iterator[type[ManagerMixin]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _with_subclasses(inner)
