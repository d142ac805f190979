"""Config diff: where two configurations differ, in their run keys (`results/run_key.py`) and in all other settings."""

from collections.abc import Iterator
from typing import Any

from cissod_bench.results.run_folder import configured_facts, parse_config
from cissod_bench.results.run_key import key_differences
from cissod_bench.splits.folder import ID_FILES
from cissod_bench.training.earlier_configs import in_todays_terms

PATHS = (
    "work_dir",
    "out_dir",
    "folder",
    "save_dir",
    "ann_file",
    "data_prefix.img",
    "hidden",
    "method_file",
    "init_cfg.checkpoint",
)
"""Endings of the names of path settings. The run key identifies the content of those files."""
_INDIFFERENT = ("num_workers", "persistent_workers", "prefetch_factor", "pin_memory", "worker_init_fn", "damaged_limit")
_APART = (
    *("run", "method_digest", "custom_imports", "optim_wrapper.amp", "optim_wrapper.precision"),
    *("visualizer", "log_level", "load_from", "resume", "launcher", "model_wrapper_cfg"),
    *(f"{loader}_dataloader.{name}" for loader in ("val", "test") for name in ("batch_size", "batch_sampler")),
)
"""Settings compared through the run key, and settings that only start, evaluate or log a run; processes show in the
batch."""
SHOWN = 4
"""Number of differences in a message."""


def differences(before: str, now: str) -> list[str]:
    """Where two configurations differ in what decides a run, in words, starting with the run key.

    Args:
        before: text of one configuration, from this version or an earlier one.
        now: text of the other.

    Raises:
        SyntaxError, ValueError, KeyError: not the configuration of a run.
    """
    if before == now:
        return []
    one, other = (in_todays_terms(parse_config(text)) for text in (before, now))
    found = key_differences(configured_facts(one), configured_facts(other))
    old, new = dict(_flat("", one)), dict(_flat("", other))
    return found + [
        f"{name} is {_shown(old, name)}, not {_shown(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]


def _shown(settings: dict[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "unset"


def show(found: list[str]) -> str:
    """The first differences, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def is_path(name: str, value: Any) -> bool:
    """Whether a setting is a path, which may change while the run stays the same.

    Args:
        name: dotted name.
        value: of the setting.
    """
    if name.startswith("run."):
        return False
    if isinstance(value, str) and value.endswith(ID_FILES["minority"]):
        return True  # a list of the split, under whatever name a method gives it
    return f".{name}".endswith(tuple(f".{path}" for path in PATHS))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of all settings that affect the result, without paths."""
    last = name.rpartition(".")[2]
    if name in _APART or last in _INDIFFERENT:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(f"{name}.{index}", inner)
    elif last == "type":
        yield name, str(value).rpartition(".")[2]  # earlier versions leave the package out
    elif not is_path(name, value):
        yield name, list(value) if isinstance(value, tuple) else value
