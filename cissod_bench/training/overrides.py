"""Settings of the resolved configuration that a user sets otherwise: `--set optim_wrapper.optimizer.lr=0.02`."""

import ast
import difflib
import logging
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cissod_bench.errors import UserError, unknown_name

_BATCH = (
    "learning rate and length follow from the images in a step; --gpus (or --processes) changes both, and a --detector "
    "has its own"
)
_ELSEWHERE = {
    "run": "it says what the run is",
    "work_dir": "give --out",
    "out_dir": "give --out",
    "folder": "give --out",
    "save_dir": "give --out",
    "randomness": "give --seed",
    "seed": "give --seed",
    "max_iters": "give --iterations",
    "num_workers": "give --workers",
    "damaged_limit": "give --damaged-images",
    "precision": "give --precision",
    "device": "give --device",
    "dist_cfg": "it follows from --device",
    "hidden": "give --hidden",
    "init_cfg.checkpoint": "give --backbone",
    "init_cfg.prefix": "it follows from --backbone",
    "train_dataloader.batch_size": _BATCH,
    "train_dataloader.sampler.batch_size": _BATCH,
    "source_ratio": _BATCH,
    "batch": _BATCH,
    "load_from": "an unfinished run goes on by itself",
    "resume": "an unfinished run goes on by itself",
    "launcher": "start it with torchrun",
    "ann_file": "the task and the split say it",
    "data_prefix": "the task and the split say it",
    "classes": "the task and the split say it",
    "num_classes": "the task and the split say it",
    "minority_images": "the task and the split say it",
    "val_evaluator": "how runs are scored is part of the protocol",
    "test_evaluator": "how runs are scored is part of the protocol",
    "val_cfg.type": "how runs are scored is part of the protocol",
    "test_cfg.type": "how runs are scored is part of the protocol",
    "train_cfg.type": "checkpoints and evaluations need this loop",
    "default_scope": "all parts are looked up in mmdet's registries",
    "custom_imports": "give --method FILE.py for parts of your own",
    "method_file": "give --method FILE.py for parts of your own",
    "method_digest": "give --method FILE.py for parts of your own",
}
"""Parts of names that cannot be set, with the reason or the option to use: the run's record would not know."""
_AT_LEAST_ONE = ("interval", "val_interval", "batch_size", "window_size", "pad_size_divisor")
"""Last parts of names of counts, whose smallest value nothing else checks."""
_CHOICES = {
    "log_level": tuple(logging.getLevelNamesMapping()),
    "mp_start_method": tuple(multiprocessing.get_all_start_methods()),
}
_OPTIONAL = ("labeled_repeat",)
"""Numbers that a setting may also go without."""


def parse_overrides(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a mapping; a value is a Python literal, or else a text.

    Raises:
        UserError: a text without "=", or a name that comes twice.
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


def apply_overrides(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Set settings of a configuration in place.

    Args:
        config: nested dictionaries and lists.
        overrides: dotted name -> value; elements of lists by number (`param_scheduler.1.gamma`).

    Raises:
        UserError: no such setting (the closest is named), a value of another type or out of range, or a setting that
            has its own option.
    """
    for name, value in overrides.items():
        refused = _refused(name)
        if refused is not None:
            what = "" if refused == name else f"{refused} "
            raise UserError(f"--set {name}: {what}cannot be set here: {_ELSEWHERE[refused]}.")
        parts = name.split(".")
        holder: Any = config
        for depth, part in enumerate(parts):
            key = _key(holder, part, name, config)
            if depth < len(parts) - 1:
                holder = holder[key]
        if isinstance(holder, tuple):
            raise UserError(f"--set {name}: set all values at once, {name.rpartition('.')[0]}={holder}.")
        holder[key] = _converted(name, holder[key], value)


def _refused(name: str) -> str | None:
    """The part of a dotted name that cannot be set, None if all of it can."""
    return next((part for part in _ELSEWHERE if f".{part}." in f".{name}."), None)


def _key(holder: Any, part: str, name: str, config: dict[str, Any]) -> Any:
    if isinstance(holder, dict) and part in holder:
        return part
    if isinstance(holder, list | tuple) and part.isdecimal() and int(part) < len(holder):
        return int(part)
    known = list(_names("", config))
    # A wrong branch with the right leaf is a likelier mistake than a name of the same length.
    leaf = name.rpartition(".")[2]
    same_leaf = [candidate for candidate in known if candidate.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(name, same_leaf or known, n=3, cutoff=0.3)
    if close:
        raise UserError(f"--set {name}: no such setting. Did you mean {', '.join(close)}?")
    raise unknown_name("setting", name, config)


def _names(prefix: str, value: Any) -> Iterator[str]:
    """Dotted names of all settings below."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        items = enumerate(value)
    elif prefix:
        yield prefix
    for key, inner in items:
        name = f"{prefix}.{key}" if prefix else str(key)
        if _refused(name) is None:
            yield from _names(name, inner)


def _converted(name: str, old: Any, new: Any) -> Any:
    """A value as the setting's type, if it is one that the setting can have."""
    leaf = name.rpartition(".")[2]
    if isinstance(old, dict) or (isinstance(old, list) and leaf == name):  # the plan and the frame need their parts
        names = old if isinstance(old, dict) else range(len(old))
        raise UserError(f"--set {name}: has settings of its own; set one of them: {', '.join(map(str, names))}.")
    if new is None and (old is None or leaf in _OPTIONAL):
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return [_converted_item(name, old, item) for item in new]
    if old is not None and type(old) is not type(new):
        given = "None" if new is None else type(new).__name__
        raise UserError(f"--set {name}={new}: {given}, but the setting is {old!r}.")
    if isinstance(new, float) and not math.isfinite(new):
        raise UserError(f"--set {name}={new}: has to be a finite number.")
    if leaf in _AT_LEAST_ONE and new < 1:
        raise UserError(f"--set {name}={new}: has to be at least 1.")
    if leaf in _CHOICES and new not in _CHOICES[leaf]:
        raise UserError(f"--set {name}: {unknown_name('value', new, _CHOICES[leaf])}")
    return new


def _converted_item(name: str, old: Any, new: Any) -> Any:
    """An item of a list that has the type of those before; lists of integers and floats take both."""
    example = next((item for item in old if isinstance(item, float)), old[0] if old else None)
    return new if example is None or isinstance(example, dict | list | tuple) else _converted(name, example, new)
