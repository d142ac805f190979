"""Is it the same run? What decides a run, as it stands in its configuration, and where two of them differ."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from cissod_bench.engine.job import Job

_INDIFFERENT = ("num_workers", "persistent_workers", "prefetch_factor", "pin_memory", "worker_init_fn", "damaged_limit")
_APART = ("visualizer", "log_level", "load_from", "resume", "launcher", "model_wrapper_cfg")
"""How a run is started and what it logs, not what it is; several processes show in its batch."""
MISSING = "nothing"
SHOWN = 4
"""Differences that a message shows."""


def identity(job: Job) -> dict[str, Any]:
    """What a run is a run of; part of its configuration, and so of its checkpoints."""
    return {
        "task": job.task.name,
        "protocol": job.task.version,
        "split_digest": job.split.digest,
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
    names = sorted(old.keys() | new.keys(), key=lambda name: (not name.startswith("run."), name))
    return [
        f"{name.removeprefix('run.')}: {old.get(name, MISSING)!r} there, {new.get(name, MISSING)!r} asked for"
        for name in names
        if old.get(name, MISSING) != new.get(name, MISSING)
    ]


def show(found: list[str]) -> str:
    """The first differences, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _settings(text: str) -> dict[str, Any]:
    """Dotted name -> value of all settings that change something in the result."""
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
    else:
        yield name, list(value) if isinstance(value, tuple) else value
