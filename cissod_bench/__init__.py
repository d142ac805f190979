"""Benchmark suite and split toolkit for class-imbalanced semi-supervised object detection (CI-SSOD).

The names below are loaded when they are first used (PEP 562), so that importing the package stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cissod_bench.version import __version__

_FROM_API = (
    "RunSpec",
    "check_results",
    "check_data",
    "compare",
    "compare_splits",
    "data_sources",
    "describe_split",
    "error_types",
    "evaluate",
    "export",
    "export_split",
    "fetch_data",
    "import_split",
    "load_detector",
    "load_results",
    "load_split",
    "make_splits",
    "pack_submission",
    "plot_splits",
    "prepare",
    "report",
    "run",
    "plot_calibration",
    "score",
    "state_training",
    "sweep",
    "verify_split",
)
_MODULES = {
    "api": "cissod_bench.api",
    "detectors": "cissod_bench.training.recipes.detectors",
    "methods": "cissod_bench.methods",
    "tasks": "cissod_bench.tasks",
}

if TYPE_CHECKING:
    from cissod_bench import api, methods, tasks
    from cissod_bench.api import (
        RunSpec,
        check_data,
        check_results,
        compare,
        compare_splits,
        data_sources,
        describe_split,
        error_types,
        evaluate,
        export,
        export_split,
        fetch_data,
        import_split,
        load_detector,
        load_results,
        load_split,
        make_splits,
        pack_submission,
        plot_calibration,
        plot_splits,
        prepare,
        report,
        run,
        score,
        state_training,
        sweep,
        verify_split,
    )
    from cissod_bench.errors import UserError
    from cissod_bench.training.recipes import detectors

__all__ = [
    "RunSpec",
    "UserError",
    "__version__",
    "api",
    "check_data",
    "check_results",
    "compare",
    "compare_splits",
    "data_sources",
    "describe_split",
    "detectors",
    "error_types",
    "evaluate",
    "export",
    "export_split",
    "fetch_data",
    "import_split",
    "load_detector",
    "load_results",
    "load_split",
    "make_splits",
    "methods",
    "pack_submission",
    "plot_calibration",
    "plot_splits",
    "prepare",
    "report",
    "run",
    "score",
    "state_training",
    "sweep",
    "tasks",
    "verify_split",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _FROM_API:
        value = getattr(importlib.import_module("cissod_bench.api"), name)
    elif name == "UserError":
        value = importlib.import_module("cissod_bench.errors").UserError
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
