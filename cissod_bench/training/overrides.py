"""Settings of the resolved configuration that a user changes: `--set optim_wrapper.optimizer.lr=0.02`."""

import ast
import difflib
import logging
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cissod_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from mmengine.config import Config

SETTABLE = (
    "model.*",
    "optim_wrapper.*",
    "param_scheduler.*",
    "train_dataloader.sampler.labeled_repeat",
    "train_dataloader.dataset.datasets.*.pipeline.*",
    "val_dataloader.batch_size",
    "test_dataloader.batch_size",
    "*_dataloader.prefetch_factor",
    "train_cfg.val_interval",
    "default_hooks.*.interval",
    "custom_hooks.*",
    "log_level",
    "log_processor.window_size",
    "env_cfg.cudnn_benchmark",
    "env_cfg.mp_cfg.*",
)
"""Patterns of the names that `--set` takes."""
_DECIDED_ELSEWHERE = {
    "give --out": ("work_dir", "out_dir", "folder", "save_dir"),
    "give --seed": ("seed",),
    "give --iterations": ("max_iters",),
    "give --workers": ("num_workers",),
    "give --device": ("device", "dist_cfg"),
    "give --precision": ("precision",),
    "give --backbone": ("init_cfg",),
    "give --hidden": ("hidden",),
    "give --damaged-images": ("damaged_limit",),
    "give --method FILE.py": ("custom_imports", "method_file", "method_digest"),
    "the images in a step decide the learning rate and the length; use --gpus, --processes or another --detector": (
        "train_dataloader.batch_size",
        "sampler.batch_size",
        "source_ratio",
        "batch",
    ),
    "the task and the split decide it": ("ann_file", "data_prefix", "classes", "num_classes", "minority_images"),
    "the protocol decides how runs are scored": ("val_evaluator", "test_evaluator", "test_cfg.rcnn.max_per_img"),
}
"""Where a setting is decided instead: what to do -> parts of names, which may lie below one of `SETTABLE`."""
_AT_LEAST_ONE = ("interval", "val_interval", "batch_size", "window_size", "pad_size_divisor")
"""Last parts of names of counts, whose smallest value nothing else checks."""
_CHOICES = {
    "log_level": tuple(logging.getLevelNamesMapping()),
    "mp_start_method": tuple(multiprocessing.get_all_start_methods()),
}
_OPTIONAL = ("labeled_repeat",)
"""Numbers that may also be None."""


def parse_overrides(given: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE texts; a value that is not a Python literal is a string.

    Raises:
        UserError: a text without "=", or a name given twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UserError(f"--set {text}: write NAME=VALUE.")
        if name in found:
            raise UserError(f"--set {name} is given twice.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def apply_overrides(config: "Config", overrides: Mapping[str, Any]) -> None:
    """Change settings of a configuration.

    Args:
        config: a complete configuration.
        overrides: dotted name -> value; items of lists by number (`param_scheduler.1.gamma`).

    Raises:
        UserError: the setting does not exist (close names are shown), has an option of its own, or cannot have
            this value.
    """
    settings = dict(_flat("", config.to_dict()))
    config.merge_from_dict({name: _checked(name, value, settings) for name, value in overrides.items()})


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting; a list without dictionaries is one setting."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        items = enumerate(value)
    elif prefix:
        yield prefix, value
    for key, inner in items:
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)


def _checked(name: str, value: Any, settings: Mapping[str, Any]) -> Any:
    """The value of an override as the type of its setting."""
    elsewhere = _elsewhere(name)
    if elsewhere is not None:
        raise UserError(f"--set {name}: cannot be set here: {elsewhere}.")
    if name in settings and not _settable(name):
        raise UserError(f"--set {name}: cannot be set here. --set takes {', '.join(SETTABLE)}.")
    if name in settings:
        return _converted(name, settings[name], value)
    below = {
        known.removeprefix(f"{name}.").partition(".")[0]: None for known in settings if known.startswith(f"{name}.")
    }
    if below:
        raise UserError(f"--set {name}: has settings of its own; set one of them: {', '.join(below)}.")
    holder = name.rpartition(".")[0]
    if holder in settings:
        raise UserError(f"--set {name}: set all values at once, {holder}={settings[holder]}.")
    known = [setting for setting in settings if _settable(setting) and _elsewhere(setting) is None]
    # A wrong branch with the right leaf is a likelier mistake than a name of the same length.
    leaf = name.rpartition(".")[2]
    same_leaf = [setting for setting in known if setting.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(name, same_leaf or known, n=3, cutoff=0.3)
    if close:
        raise UserError(f"--set {name}: no such setting. Did you mean {', '.join(close)}?")
    raise unknown_name("setting", name, SETTABLE)


def _settable(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in SETTABLE)


def _elsewhere(name: str) -> str | None:
    """What decides a setting that `--set` must not change; None if nothing does."""
    for reason, parts in _DECIDED_ELSEWHERE.items():
        if any(f".{part}." in f".{name}." for part in parts):
            return reason
    return None


def _converted(name: str, old: Any, new: Any) -> Any:
    """A value as the type of the setting, if the setting can have it."""
    leaf = name.rpartition(".")[2]
    if new is None and (old is None or leaf in _OPTIONAL):
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return [_converted_item(name, old, item) for item in new]
    if old is not None and type(old) is not type(new):
        given = "None" if new is None else type(new).__name__
        raise UserError(f"--set {name}={new}: the value is of type {given}, but the setting is {old!r}.")
    if isinstance(new, float) and not math.isfinite(new):
        raise UserError(f"--set {name}={new}: must be a finite number.")
    if leaf in _AT_LEAST_ONE and new < 1:
        raise UserError(f"--set {name}={new}: must be at least 1.")
    if leaf in _CHOICES and new not in _CHOICES[leaf]:
        raise UserError(f"--set {name}: {unknown_name('value', new, _CHOICES[leaf])}")
    from mmengine.config.config import DELETE_KEY

    return {**new, DELETE_KEY: True} if isinstance(new, dict) else new  # the old value was None: nothing to merge with


def _converted_item(name: str, old: Any, new: Any) -> Any:
    """An item of a list as the type of the old items; lists of integers and floats take both."""
    example = next((item for item in old if isinstance(item, float)), old[0] if old else None)
    return new if example is None or isinstance(example, dict | list | tuple) else _converted(name, example, new)
