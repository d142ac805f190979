"""Preflight check: build what a user's own method or `--set` decides, before anything is written.

Building finds unknown names, unknown arguments and values that a component rejects. The model also predicts on an empty
image, because layers of different widths are built without complaint.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    DefaultScope,
    Registry,
)
from mmengine.runner import Runner

from cissod_bench.errors import UserError, blaming
from cissod_bench.io import write_bytes
from cissod_bench.ssod.randomness import preserved_randomness
from cissod_bench.training.backbone import check_backbone
from cissod_bench.training.build_config import build_config, validation_list
from cissod_bench.training.job import Job
from cissod_bench.training.process.isolation import own_instances

SIDE = 64
"""Pixels of the empty image."""


def check_parts(job: Job) -> None:
    """Build what a user's own method and settings decide, and discard it.

    Raises:
        UserError: a component of the method names an unknown class or gives it an unknown argument; or a setting
            does not fit the configuration, or its component rejects it; or the backbone's weights are not for the
            backbone that all settings make.
    """
    own = (job.method.file, job.detector.file, job.spec.backbone)
    if not job.spec.overrides and not any(own):
        return
    with own_instances(), DefaultScope.overwrite_default_scope("mmdet"), preserved_randomness(), _silence():
        if job.method.file is not None:
            without_overrides = replace(job, spec=msgspec.structs.replace(job.spec, overrides={}))
            with blaming(job.method.file):
                MODELS.build({**build_config(without_overrides).model, "method_file": None})
                for hook in job.method_config.hooks:
                    HOOKS.build(dict(hook))
        if job.detector.file is not None:
            config = build_config(replace(job, spec=msgspec.structs.replace(job.spec, overrides={}, backbone=None)))
            with blaming_detector(job.detector.file.path):
                check_norms(job.detector.file.path, _model(job, config))
                _optimizer(job, config)
        config = build_config(job)
        for section in dict.fromkeys(name.partition(".")[0] for name in job.spec.overrides):
            if section in _CHECKS:
                with blaming_settings(job, section):
                    _CHECKS[section](job, config)
        if job.spec.backbone is not None:
            check_backbone(job.spec.backbone, config.model.detector, job.detector.backbone_file)


@contextlib.contextmanager
def blaming_settings(job: Job, section: str) -> Iterator[None]:
    """Turn an exception raised while building a component into an error that names the settings given for it."""
    try:
        yield
    except Exception as error:
        given = [f"{name}={value}" for name, value in job.spec.overrides.items() if name.partition(".")[0] == section]
        raise UserError(f"--set {', '.join(given)}: does not fit ({_cause(error)}).") from error


@contextlib.contextmanager
def blaming_detector(file: Path) -> Iterator[None]:
    """Turn an exception raised while building a detector into an error that names its file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file}: mmdet cannot build this detector ({_cause(error)}).") from error


def _cause(error: Exception) -> str:
    """Type and first line of an exception, without the registry's advice on imports."""
    line = str(error.args[0] if error.args else error).partition("\n")[0]
    return f"{type(error).__name__}: {line.partition('. Please ')[0]}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence the libraries: they print the same again when the run builds its components."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _known(registry: Registry, name: str) -> None:
    if registry.get(name) is None:
        raise KeyError(f"{name} is not in the {registry.name} registry")


def check_norms(file: Path, model: torch.nn.Module) -> None:
    """Refuse normalisation that learns statistics: the teacher is an average of weights, and would never get them.

    Raises:
        UserError: a part of the detector does.
    """
    for name, part in model.train().get_submodule("student").named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._NormBase) and part.training and part.track_running_stats:
            raise UserError(
                f"{file}: model.{name} is a batch normalisation that collects statistics in training, which the "
                "teacher, an average of the student's weights, would not have. Set norm_eval=True, for pretrained "
                'weights, or norm_cfg=dict(type="GN", num_groups=32).'
            )


def _model(job: Job, config: Config) -> torch.nn.Module:
    model = MODELS.build({**config.model, "method_file": None}).eval()
    sample = DetDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)})
    batch = {"inputs": [torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)], "data_samples": [sample]}
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        model.teacher.predict(data["inputs"], data["data_samples"])
    return model


def _optimizer(job: Job, config: Config) -> None:
    _known(OPTIMIZERS, config.optim_wrapper.optimizer.type)
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), config.optim_wrapper)
    for scheduler in config.param_scheduler:
        PARAM_SCHEDULERS.build(scheduler, default_args={"optimizer": wrapper})


def _hooks(job: Job, config: Config) -> None:
    for hook in (*config.default_hooks.values(), *config.custom_hooks):
        # Reading the hidden annotations once is enough.
        HOOKS.build({**hook, "hidden": None} if "hidden" in hook else dict(hook))


def _loader(name: str, job: Job, config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loader = config[name].to_dict()
        if name != "train_dataloader":
            images = Path(folder) / job.folder.validation_images.name  # the run folder does not exist yet
            write_bytes(images, validation_list(job))
            loader["dataset"]["ann_file"] = str(images)
        elif job.method_config.all_labels:  # neither do they
            loader["dataset"]["datasets"][0]["ann_file"] = str(job.split.labeled_file)
        Runner.build_dataloader(loader, seed=job.seed)


_CHECKS: dict[str, Callable[[Job, Config], object]] = {
    "model": _model,
    "optim_wrapper": _optimizer,
    "param_scheduler": _optimizer,
    "default_hooks": _hooks,
    "custom_hooks": _hooks,
    "train_dataloader": partial(_loader, "train_dataloader"),
    "val_dataloader": partial(_loader, "val_dataloader"),
    "test_dataloader": partial(_loader, "test_dataloader"),
}
"""Check by the first part of a setting's name."""
