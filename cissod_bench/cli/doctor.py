"""`cissod-bench doctor`: what is installed, and what each task still needs."""

from pathlib import Path
from typing import Any

import typer

from cissod_bench.cli.console import print_json, say
from cissod_bench.cli.options import DataRoot, Json
from cissod_bench.extras import install_command, remedy_of_import


def doctor(data_root: DataRoot = Path("data"), as_json: Json = False) -> None:
    """Print what is installed, and which data is missing."""
    versions, hardware, tasks = software(), device(), task_data(data_root)
    problem = clash()
    if as_json:
        print_json({"software": versions, "device": hardware, "clash": problem, "tasks": tasks})
        return
    for name, value in (versions | hardware).items():
        say(f"{name:<18} {value}")
    if problem:
        say(f"\n{problem}", color=typer.colors.RED)
    say(f"\nData root: {data_root.absolute()}")
    for name, files in tasks.items():
        say(f"{name:<18} {'ready' if all(entry['found'] for entry in files) else 'incomplete'}")
        for entry in files:
            say(f"    {'found' if entry['found'] else 'missing':<8} {entry['what']:<24} {entry['path']}")
            if not entry["found"]:
                say(f"{'':13}{entry['remedy']}")


def software() -> dict[str, str]:
    """Versions of this program and its dependencies; "missing" for what is not installed."""
    from cissod_bench.results.environment import describe_environment
    from cissod_bench.version import __version__

    found = {"cissod-bench": __version__, **describe_environment()}
    for package in ("torch", "torchvision", *_ONEDL.values()):
        found.setdefault(package, f"missing: training needs it, run `{install_command('train')}`")
    return found


_ONEDL = {"mmdet": "onedl-mmdetection", "mmengine": "onedl-mmengine", "mmcv": "onedl-mmcv"}
"""Modules, and the maintained distributions of them that the extra `train` installs."""


def clash() -> str | None:
    """What to do where OpenMMLab's original distributions are installed as well: both unpack into the same folders."""
    originals = [name for name in (*_ONEDL, "mmcv-full", "mmcv-lite") if _is_installed(name)]
    if not originals:
        return None
    return (
        f"{', '.join(originals)}: installed in the folders of {', '.join(_ONEDL.values())}. Run `pip uninstall --yes "
        f"{' '.join(originals)}`, then `pip install --force-reinstall --no-deps {' '.join(_ONEDL.values())}`."
    )


def _is_installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def device() -> dict[str, str]:
    """GPU and operator backend, or why they are unknown."""
    try:
        import torch
    except ImportError as error:
        return {"gpu": f"unknown: PyTorch cannot be imported ({error})", "operators": "unknown"}
    from cissod_bench.ssod import mmcv_shim as operators

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        gpu = "none: training runs on the CPU"
    try:
        served = {"mmcv": "compiled mmcv", "torchvision": "torchvision (no compiled mmcv)"}[operators.backend()]
    except ImportError as error:
        served = f"none: {remedy_of_import(error) or error}"
    return {"gpu": gpu, "operators": served}


_SITES = {
    "coco": "download it from cocodataset.org",
    "lvis": "download annotations from lvisdataset.org, images from cocodataset.org",
    "objects365": "download Objects365 v2 from objects365.org and COCO 2017 from cocodataset.org",
}


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def task_data(data_root: Path) -> dict[str, list[dict[str, Any]]]:
    """The files that each built-in task needs, and whether they exist."""
    from cissod_bench.tasks.registry import TASKS
    from cissod_bench.training.spec import RunSpec, default_split, making_command

    report = {}
    for task in TASKS.values():
        split = default_split(data_root, task.name)
        files = {}
        if task.files is not None:
            files = {
                "training annotations": data_root / task.files.train_annotations,
                "training images": data_root / task.files.train_images,
                "validation annotations": data_root / task.files.val_annotations,
                "validation images": data_root / task.files.val_images,
            }
        entries = [
            {"what": what, "path": str(path), "found": _holds_something(path), "remedy": _SITES[task.dataset]}
            for what, path in files.items()
        ]
        entries.append(
            {
                "what": "split (seed 0)",
                "path": str(split),
                "found": (split / "split.json").is_file(),
                "remedy": making_command(RunSpec(task=task.name, data_root=data_root)),
            }
        )
        report[task.name] = entries
    return report
