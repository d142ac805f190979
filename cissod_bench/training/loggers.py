"""Loggers besides the run folder: TensorBoard, Weights & Biases and MLflow, if installed."""

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
"""Names of the loggers and of the packages they need."""


def choose_loggers(given: Sequence[str] | None) -> tuple[str, ...]:
    """The loggers of a run: those given ("none" for none), or by default TensorBoard if it is installed.

    Raises:
        UserError: an unknown logger, or its package is not installed.
    """
    if given is None:
        return ("tensorboard",) if _installed("tensorboard") else ()
    for name in given:
        if name not in (*LOGGERS, "none"):
            raise unknown_name("logger", name, (*LOGGERS, "none"))
        if name != "none" and not _installed(name):
            raise UserError(f"--logger {name}: the package is not installed. Run `pip install {name}`.")
    return tuple(dict.fromkeys(name for name in given if name != "none"))


def backends(loggers: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """mmengine's configuration of the loggers, after that of the log in the run folder, which always exists.

    The id for Weights & Biases is derived from the run folder, so that a resumed run continues its curves.
    """
    project = "cissod-bench"
    mlflow_server = os.environ.get("MLFLOW_TRACKING_URI")  # a server stores artifacts itself
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
            # mmengine's default is a plain folder, which MLflow no longer supports.
            "tracking_uri": mlflow_server or f"sqlite:///{out.absolute()}/mlflow/mlflow.db",
            "artifact_location": None if mlflow_server else (out / "mlflow" / "artifacts").absolute().as_uri(),
            "artifact_suffix": (),
        },
    }
    return [component(ScalarLog, save_dir=str(out)), *(known[name] for name in loggers)]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
