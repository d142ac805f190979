"""Where else the scalars of a run go: TensorBoard, Weights & Biases, MLflow, each where it is installed."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.io import sha256_text
from cissod_bench.ssod.component import component
from cissod_bench.ssod.hooks.logs import ScalarLog, TensorboardLog

LOGGERS = ("tensorboard", "wandb", "mlflow")
"""Names of the loggers, which are those of the packages that they need."""


def choose_loggers(given: Sequence[str] | None) -> tuple[str, ...]:
    """The loggers of a run: those asked for, "none" for none, TensorBoard by default where it is installed.

    Raises:
        UserError: no such logger, or its package is not installed.
    """
    if given is None:
        return ("tensorboard",) if _installed("tensorboard") else ()
    for name in given:
        if name not in (*LOGGERS, "none"):
            raise unknown_name("logger", name, (*LOGGERS, "none"))
        if name != "none" and not _installed(name):
            raise UserError(f"--logger {name}: the package is not installed. `pip install {name}` installs it.")
    return tuple(dict.fromkeys(name for name in given if name != "none"))


def backends(loggers: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """mmengine's configuration of the loggers, behind the log of the run folder, which is always there.

    The run's identity for Weights & Biases follows from its folder, so that a resumed run goes on with its curves.
    """
    project = "cissod-bench"
    mlflow_server = os.environ.get("MLFLOW_TRACKING_URI")  # which has its own place for artifacts
    known: dict[str, dict[str, Any]] = {
        "tensorboard": component(TensorboardLog, save_dir=str(out / "tensorboard")),
        "wandb": {
            "type": "WandbVisBackend",
            "save_dir": str(out),
            "init_kwargs": {
                "project": project,
                "name": out.name,
                "id": sha256_text(str(out.absolute()))[:16],
                "resume": "allow",
            },
        },
        "mlflow": {
            "type": "MLflowVisBackend",
            "save_dir": str(out / "mlflow"),
            "exp_name": project,
            "run_name": out.name,
            # MLflow no longer writes plain folders, and mmengine's default is one.
            "tracking_uri": mlflow_server or f"sqlite:///{out.absolute()}/mlflow/mlflow.db",
            "artifact_location": None if mlflow_server else (out / "mlflow" / "artifacts").absolute().as_uri(),
            "artifact_suffix": (),
        },
    }
    return [component(ScalarLog, save_dir=str(out)), *(known[name] for name in loggers)]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
