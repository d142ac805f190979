"""Is it the same run? What decides a run, as it stands in its configuration, and where two of them differ."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from cissod_bench.splits.folder import ID_FILES
from cissod_bench.training.job import Job

PLACES = (
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
"""Ends of the names of settings that say where something lies. What lies there is told apart by `identity`."""
_INDIFFERENT = ("num_workers", "persistent_workers", "prefetch_factor", "pin_memory", "worker_init_fn", "damaged_limit")
_APART = ("visualizer", "log_level", "load_from", "resume", "launcher", "model_wrapper_cfg")
"""How a run is started and what it logs, not what it is; several processes show in its batch."""
_LATER = ("run.validation_digest",)
"""Facts that runs of earlier versions did not note; they are taken to be what is asked for."""
MISSING = "nothing"
SHOWN = 4
"""Differences that a message shows."""


def identity(job: Job) -> dict[str, Any]:
    """What a run is a run of; part of its configuration, and so of its checkpoints."""
    return {
        "task": job.task.name,
        "protocol": job.task.version,
        "split_digest": job.split.digest,
        "validation_digest": job.validation_digest,
        "classes": len(job.split.classes),
        "method": job.method.name,
        "options": dict(job.changed_options),
        "detector": job.detector.name,
        "backbone": job.backbone_digest,
        "schedule": job.schedule.name,
        "iterations": job.iterations,
        "batch": list(job.batch),
        "seed": job.seed,
        "overrides": dict(job.overrides),
    }


def differences(before: str, now: str) -> list[str]:
    """Where two configurations differ in what decides a run, in words; what they are runs of comes first.

    Args:
        before: text of one configuration, as mmengine prints it.
        now: text of the other one.
    """
    if before == now:
        return []
    old, new = _settings(before), _settings(now)
    unknown = {name for name in _LATER if name not in old}
    names = sorted((old.keys() | new.keys()) - unknown, key=lambda name: (not name.startswith("run."), name))
    return [
        f"{name.removeprefix('run.')}: {old.get(name, MISSING)!r} there, {new.get(name, MISSING)!r} asked for"
        for name in names
        if old.get(name, MISSING) != new.get(name, MISSING)
    ]


def show(found: list[str]) -> str:
    """The first differences, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def is_place(name: str, value: Any) -> bool:
    """Whether a setting says where something lies, which may change while the run stays the same.

    Args:
        name: dotted name.
        value: of the setting.
    """
    if name.startswith("run."):
        return False
    if isinstance(value, str) and value.endswith(ID_FILES["minority"]):
        return True  # a list of the split, whatever a method calls it
    return f".{name}".endswith(tuple(f".{place}" for place in PLACES))


def _settings(text: str) -> dict[str, Any]:
    """Dotted name -> value of all settings that change something in the result, wherever its files lie."""
    return dict(_flat("", Config.fromstring(text, ".py").to_dict()))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name in _APART or name.rpartition(".")[2] in _INDIFFERENT:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(f"{name}.{index}", inner)
    elif not is_place(name, value):
        yield name, list(value) if isinstance(value, tuple) else value
