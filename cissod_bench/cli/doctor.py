"""`cissod-bench doctor`: what is installed, and what each task still needs."""

from pathlib import Path
from typing import Any

from cissod_bench.cli.console import say
from cissod_bench.cli.options import DataRoot, Json
from cissod_bench.errors import remedy_of_import


def doctor(data_root: DataRoot = Path("data"), as_json: Json = False) -> None:
    """Print versions, the GPU, the source of the detection operators, and the data that each task still needs."""
    versions, hardware, tasks = software(), device(), task_data(data_root)
    if as_json:
        import json

        say(json.dumps({"software": versions, "device": hardware, "tasks": tasks}, indent=2))
        return
    for name, value in (versions | hardware).items():
        say(f"{name:<18} {value}")
    say(f"\nData root: {data_root.absolute()}")
    for name, files in tasks.items():
        say(f"{name:<18} {'ready' if all(entry['found'] for entry in files) else 'incomplete'}")
        for entry in files:
            say(f"    {'found' if entry['found'] else 'missing':<8} {entry['what']:<24} {entry['path']}")
            if not entry["found"]:
                say(f"{'':13}{entry['remedy']}")


def software() -> dict[str, str]:
    """Versions of this program and its dependencies; "missing" for what is not installed."""
    from cissod_bench.results.record import describe_environment
    from cissod_bench.version import __version__

    found = {"cissod-bench": __version__, **describe_environment()}
    for package in ("torch", "torchvision", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "hotcoco"):
        found.setdefault(package, "missing: training and evaluation need it")
    return found


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
    from cissod_bench.training.spec import default_split

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
                "remedy": f"cissod-bench make-splits --task {task.name} --out {split}",
            }
        )
        report[task.name] = entries
    return report
