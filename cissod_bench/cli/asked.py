"""What a run will be recorded as, from its command line alone.

That takes milliseconds, so that hundreds of run folders can be held against what is asked for; resolving the job, which
loads mmdet and reads the data, says the same (`tests/sweeps/test_held.py`).
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.options import split_folder
from cissod_bench.cli.run import choose_method, parse_options, quiet_imports
from cissod_bench.errors import UserError

if TYPE_CHECKING:
    from cissod_bench.methods.base import Method
    from cissod_bench.splits.folder import Manifest


def asked_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a record's key (`results/record.py`) that decide what a run is.

    Args:
        given: options of `run` by name, those with their defaults too, as click parses them: paths are texts.

    Raises:
        UserError: an unknown name, no split, or no file with backbone weights.
    """
    from cissod_bench.methods.registry import get_method
    from cissod_bench.tasks.registry import get_task
    from cissod_bench.training.detectors import get_detector
    from cissod_bench.training.overrides import parse_overrides
    from cissod_bench.training.schedules import get_schedule

    task = get_task(given["task"])
    schedule, detector = get_schedule(given["schedule"]), get_detector(given["detector"] or task.detector)
    named, options, _ = choose_method(
        given["method"],
        given["ablation"],
        parse_options(list(given["option"] or [])),
        preset=given["preset"],
        dataset=task.dataset,
    )
    method, processes = get_method(named), given["gpus"] * given["nodes"]
    return {
        "task": task.name,
        "protocol": task.version,
        "split_digest": _split(Path(given["split"] or split_folder(Path(given["data_root"]), task.name, 0))).digest,
        "method": method.name,
        "method_options": _changed(method, options),
        "method_digest": method.digest,
        "train_seed": given["seed"],
        "schedule": schedule.name,
        "iterations": given["iterations"] or schedule.length(task, processes / detector.reference_gpus),
        "detector": detector.name,
        "backbone": None if given["backbone"] is None else _digest(Path(given["backbone"])),
        "batch": tuple(images * processes for images in detector.per_gpu),
        "amp": given["amp"],
        "compile": given["compile"],
        "evaluator": given["evaluator"],
        "max_detections": task.max_detections,
        "rules": "lvis" if task.dataset == "lvis" else "coco",
        "overrides": parse_overrides(given["settings"] or []),
    }


def _changed(method: "Method", given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given options that are not the method's defaults, as the method's module reads them."""
    if not given:
        return {}
    import msgspec

    with quiet_imports():
        defaults = msgspec.structs.asdict(method.options({}))
    options = msgspec.structs.asdict(method.options(given))
    return {name: value for name, value in options.items() if value != defaults[name]}


@functools.cache
def _split(folder: Path) -> "Manifest":
    from cissod_bench.splits.folder import read_manifest

    return read_manifest(folder)


@functools.cache
def _digest(backbone: Path) -> str:
    from cissod_bench.io import sha256_file

    if not backbone.is_file():
        raise UserError(f"--backbone {backbone}: no such file.")
    return sha256_file(backbone)
