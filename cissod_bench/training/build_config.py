"""The complete mmengine configuration of a job: it alone decides the run."""

import pprint
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from mmengine.config import Config

from cissod_bench.errors import UserError
from cissod_bench.io import write_bytes, write_text
from cissod_bench.ssod import mmcv_shim
from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.damaged import DamagedImagesHook
from cissod_bench.ssod.data.ignored_regions import NOT_BACKGROUND
from cissod_bench.ssod.hooks.checkpoints import AtomicCheckpointHook
from cissod_bench.ssod.hooks.compiled import CompileHook
from cissod_bench.ssod.hooks.diagnostics import DiagnosticsHook
from cissod_bench.ssod.hooks.iteration import FiniteLossHook, SamplerStateHook, StopwatchHook, TeacherStudentHook
from cissod_bench.ssod.hooks.logs import ResumableLogsHook
from cissod_bench.ssod.hooks.progress import ProgressHook, ThroughputHook
from cissod_bench.ssod.hooks.scalars import ScalarsHook
from cissod_bench.ssod.loop import TrainLoop
from cissod_bench.ssod.metric import GroupAP
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper
from cissod_bench.ssod.randomness import IterationSeedHook
from cissod_bench.training import data_config as data
from cissod_bench.training.config_diff import is_path
from cissod_bench.training.job import Job
from cissod_bench.training.loggers import backends
from cissod_bench.training.overrides import apply_overrides
from cissod_bench.training.recipes.scaling import scaled_length, scaled_momentum
from cissod_bench.training.spec import first_weights


class PlainConfig(Config):
    """mmengine's configuration, printed by the standard library.

    mmengine formats the text with yapf, which takes seconds, and does so for every checkpoint.
    """

    @property
    def pretty_text(self) -> str:
        """One assignment for each top-level key, which `Config.fromfile` reads again.

        mmengine replaces `{{...}}` in a file before it runs it, even by environment variables and inside of a class's
        name; written with an escape, the braces are text and nothing else.
        """
        settings = self.to_dict().items()
        text = "".join(f"{name} = {pprint.pformat(value, width=116, sort_dicts=False)}\n" for name, value in settings)
        return text.replace("{{", r"{\x7b")


def build_config(job: Job) -> Config:
    """The configuration of a run, complete and plain: mmdet alone can run it, given the package is installed.

    Raises:
        UserError: an override does not fit.
    """
    config = PlainConfig(resolved(job))
    apply_overrides(config, job.spec.overrides)
    return config


def export_config(job: Job, file: Path) -> None:
    """Write a run's configuration and, next to it, the list of its validation images, for mmdet's own Runner.

    Raises:
        UserError: mmengine does not read files of this name, or one of the files exists with other content.
    """
    if file.suffix != ".py":
        raise UserError(f"--export-config {file}: mmengine only reads configurations called NAME.py. Give such a name.")
    config = build_config(job)
    if job.method_config.all_labels:
        labels = file.with_suffix(".full_labels.json")
        job.write_full_labels(labels)
        config.train_dataloader.dataset.datasets[0].ann_file = str(labels)
    images = file.with_suffix(".validation_images.json")
    for loader in (config.val_dataloader, config.test_dataloader):
        loader.dataset.ann_file = str(images)
    if "method_file" in config.model:
        config.model.method_file = str(job.method.file)  # the run folder, with its copy, need not exist
    text = PlainConfig(from_anywhere(config.to_dict())).pretty_text
    for path, content in ((images, validation_list(job)), (file, text.encode())):
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise UserError(f"{path}: exists with other content. Give another name, or remove it.")
    write_bytes(images, validation_list(job))
    write_text(file, text)


def from_anywhere(value: Any, name: str = "") -> Any:
    """A configuration with absolute paths, so that it means the same in every working directory."""
    if isinstance(value, dict):
        return {key: from_anywhere(inner, f"{name}.{key}" if name else str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_anywhere(inner, f"{name}.{index}") for index, inner in enumerate(value))
    return str(Path(value).absolute()) if isinstance(value, str) and is_path(name, value) else value


def validation_list(job: Job) -> bytes:
    """The validation images as a COCO file without annotations."""
    classes = [dict(entry) for entry in job.split.classes]
    return msgspec.json.encode({"images": job.validation_images, "annotations": [], "categories": classes})


def resolved(job: Job) -> dict[str, Any]:
    """What the presets, the task and the method make of a run, before overrides."""
    unlabeled = None
    if job.method_config.unlabeled:
        unlabeled = data.dataset(
            job.split.unlabeled_file,
            job.places.train_images,
            job.split.class_names,
            data.unlabeled_pipeline(job.detector),
            test=False,
        )
    loaders = data.loaders(
        data.dataset(
            job.labeled_file,
            job.places.train_images,
            job.split.class_names,
            data.labeled_pipeline(job.detector, alone=unlabeled is None),
            test=False,
            ignored_regions=job.ignored_regions,
        ),
        unlabeled,
        data.dataset(
            job.folder.validation_images,
            job.places.val_images,
            job.split.class_names,
            data.test_pipeline(job.detector),
            test=True,
        ),
        per_gpu=job.per_gpu,
        seed=job.seed,
        workers=job.workers,
        labeled_repeat=job.method_config.labeled_repeat,
        pin_memory=job.device == "cuda",
        damaged_limit=job.spec.damaged_images,
        test_batch=job.detector.test_batch,
    )
    evaluator = component(
        GroupAP,
        ann_file=str(job.places.val_annotations),
        classes=job.split.class_names,
        groups={name: tuple(members) for name, members in job.split.groups.items()},
        evaluator=job.spec.evaluator,
        max_detections=job.task.max_detections,
        out_dir=str(job.out),
        lvis=job.task.dataset == "lvis",
    )
    return {
        "default_scope": "mmdet",
        **own_method(job),
        "run": msgspec.to_builtins(job.key),
        "work_dir": str(job.out),
        "randomness": {"seed": job.seed},
        "env_cfg": {
            "cudnn_benchmark": False,
            "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
            "dist_cfg": {"backend": "nccl" if job.device == "cuda" else "gloo"},
        },
        "model": model(job),
        **loaders,
        **schedule(job),
        "val_evaluator": evaluator,
        "test_evaluator": evaluator,
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": {
            "runtime_info": component(ScalarsHook, interval=log_interval(job)),
            "timer": {"type": "IterTimerHook"},
            "logger": {"type": "LoggerHook", "interval": log_interval(job), "log_metric_by_epoch": False},
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": component(
                AtomicCheckpointHook,
                interval=checkpoint_interval(job),
                folder=str(job.folder.checkpoints),
                **accumulated(job),
            ),
            "sampler_seed": {"type": "DistSamplerSeedHook"},
        },
        "custom_hooks": hooks(job),
        "log_processor": {"type": "LogProcessor", "window_size": 50, "by_epoch": False},
        "visualizer": {"type": "DetLocalVisualizer", "vis_backends": backends(job.loggers, job.out)},
        "log_level": "INFO",
        "load_from": None,
        "resume": False,
    }


def own_method(job: Job) -> dict[str, Any]:
    """What has to be imported before anything is built.

    The stand-in for mmcv's compiled operators comes before mmdet. The file of a user's method is imported by
    `TeacherStudent`, out of the run folder: no name leads to it.
    """
    imports = [mmcv_shim.__name__]
    if job.method.package is not None:
        imports.append(job.method.module)
    return {"custom_imports": {"imports": imports, "allow_failed_imports": False}}


def log_interval(job: Job) -> int:
    """Iterations between two lines of the log."""
    return max(1, min(50, job.iterations // 20))


def checkpoint_interval(job: Job) -> int:
    """Iterations between two checkpoints."""
    return whole_steps(job, max(1, job.iterations // 20))


def accumulated(job: Job) -> dict[str, int]:
    """What parts are told that act once a step of the optimiser; nothing where every batch is a step."""
    return {} if job.spec.accumulate == 1 else {"accumulate": job.spec.accumulate}


def whole_steps(job: Job, iterations: int) -> int:
    """A number of iterations, rounded up to whole steps of the optimiser."""
    return -(-iterations // job.spec.accumulate) * job.spec.accumulate


def hooks(job: Job) -> list[dict[str, Any]]:
    """Hooks around the iterations, besides mmengine's own: the framework's, then the method's."""
    return [
        component(IterationSeedHook, seed=job.seed),
        component(ResumableLogsHook, out_dir=str(job.out)),
        component(FiniteLossHook, interval=log_interval(job), out_dir=str(job.out)),
        component(DamagedImagesHook, damaged_limit=job.spec.damaged_images),
        component(StopwatchHook),
        component(SamplerStateHook),
        component(
            TeacherStudentHook,
            momentum=scaled_momentum(job.detector.ema_momentum, job.scale),
            **accumulated(job),
        ),
        component(ThroughputHook, interval=log_interval(job), batch=sum(job.per_gpu) * job.processes),
        component(ProgressHook),
        component(
            DiagnosticsHook,
            interval=log_interval(job),
            out_dir=str(job.out),
            classes=job.split.class_names,
            groups={name: tuple(members) for name, members in job.split.groups.items()},
            hidden=None if job.places.hidden_annotations is None else str(job.places.hidden_annotations),
        ),
        *(dict(hook) for hook in job.method_config.hooks),
        *([component(CompileHook)] if job.spec.compile else []),
    ]


def model(job: Job) -> dict[str, Any]:
    """The framework with the method's components in it."""
    method = job.method_config
    assert method.threshold is not None  # `Method.configure` fills it in
    detector = job.detector.model(len(job.split.classes), job.task.max_detections)
    detector = merged(detector, NOT_BACKGROUND if job.ignored_regions else {})
    detector = merged(detector, method.detector)
    detector["roi_head"]["bbox_head"] |= {**method.bbox_head, "loss_cls": dict(method.loss_cls)}
    detector["data_preprocessor"]["non_blocking"] = job.device == "cuda"  # from the loader's pinned memory
    detector["data_preprocessor"]["pad_size_divisor"] = job.detector.padding
    backbone = first_weights(job.spec, job.detector)
    if backbone is not None:
        weights = {"type": "Pretrained", "checkpoint": str(backbone), "prefix": job.backbone_prefix}
        detector["backbone"]["init_cfg"] = weights
    elif job.detector.file is None and detector["backbone"].get("norm_cfg", {}).get("type") == "BN":
        # Frozen statistics only make sense for the weights they were measured on: from scratch the same network has
        # group normalisation, and nothing is frozen.
        groups = 8 if detector["backbone"]["type"] == "MobileNetV2" else 32  # divide the channels of all layers
        norm = {"type": "GN", "num_groups": groups, "requires_grad": True}
        detector["backbone"] |= {"norm_cfg": norm, "norm_eval": False, "frozen_stages": -1}
    by_path = job.method.file is not None and job.method.package is None
    return component(
        TeacherStudent,
        **({"method_file": str(job.folder.method)} if by_path else {}),
        detector=detector,
        data_preprocessor={
            "type": "MultiBranchDataPreprocessor",
            "data_preprocessor": detector["data_preprocessor"],
        },
        threshold=dict(method.threshold),
        refinement=None if method.refinement is None else dict(method.refinement),
        semi_train_cfg={**job.detector.semi, "burn_in": job.burn_in},
        semi_test_cfg={"predict_on": "teacher"},
    )


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with changes put into it key by key; what is no dictionary is replaced."""
    result = dict(config)
    for key, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if inner else value
    return result


def schedule(job: Job) -> dict[str, Any]:
    """Optimiser, learning rate steps at 75 % and 90 % of the run (paper sec. 4.2), warm-up, evaluation interval."""
    length, evaluations = job.iterations, job.spec.evaluations or job.schedule.evaluations
    fused = {"fused": True} if job.device == "cuda" else {}
    wrapper = component(
        MixedPrecisionOptimWrapper, optimizer={**job.optimizer, **fused}, precision=job.precision, device=job.device
    )
    if job.spec.accumulate > 1:
        wrapper["accumulative_counts"] = job.spec.accumulate
    if job.detector.clip is not None:
        wrapper["clip_grad"] = {"max_norm": job.detector.clip, "norm_type": 2}
    # At least 2: mmengine's LinearLR of one iteration stays at its start for ever.
    warmup = min(scaled_length(job.detector.warmup, job.scale) * job.spec.accumulate, max(2, length // 5))
    return {
        "optim_wrapper": wrapper,
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": warmup},
            {
                "type": "MultiStepLR",
                "begin": 0,
                "end": length,
                "by_epoch": False,
                "milestones": [round(0.75 * length), round(0.9 * length)],
                "gamma": 0.1,
            },
        ],
        "train_cfg": component(TrainLoop, max_iters=length, val_interval=whole_steps(job, -(-length // evaluations))),
    }
