"""Settings of the resolved configuration that a user sets otherwise: `--set optim_wrapper.optimizer.lr=0.02`."""

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cissod_bench.errors import UserError, unknown_name

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
    "load_from": "an unfinished run goes on by itself",
    "resume": "an unfinished run goes on by itself",
    "launcher": "start it with torchrun",
    "ann_file": "the task and the split say it",
    "data_prefix": "the task and the split say it",
    "classes": "the task and the split say it",
    "num_classes": "the task and the split say it",
    "val_evaluator": "how runs are scored is part of the protocol",
    "test_evaluator": "how runs are scored is part of the protocol",
    "custom_imports": "give --method FILE.py for parts of your own",
    "method_digest": "give --method FILE.py for parts of your own",
}
"""Parts of names that cannot be set, with the reason or the option to use: the run's record would not know."""


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
        UserError: no such setting (the closest is named), a value of another type, or a setting that has its own
            option.
    """
    for name, value in overrides.items():
        parts = name.split(".")
        for part in parts:
            if part in _ELSEWHERE:
                raise UserError(f"--set {name}: {part} cannot be set here: {_ELSEWHERE[part]}.")
        holder: Any = config
        for depth, part in enumerate(parts):
            key = _key(holder, part, name, config)
            if depth < len(parts) - 1:
                holder = holder[key]
        holder[key] = _converted(name, holder[key], value)


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
        if key not in _ELSEWHERE:
            yield from _names(f"{prefix}.{key}" if prefix else str(key), inner)


def _converted(name: str, old: Any, new: Any) -> Any:
    if isinstance(old, dict):
        raise UserError(f"--set {name}: has settings of its own; set one of them: {', '.join(map(str, old))}.")
    if old is None or new is None:
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return list(new)
    if type(old) is not type(new):
        raise UserError(f"--set {name}={new}: {type(new).__name__}, but the setting is {old!r}.")
    return new
