"""Configurations that version 0.1 wrote, in today's terms: it named components by registered names, not by paths."""

from collections.abc import Callable
from typing import Any

from cissod_bench.baselines.c2am import AngularMarginLoss, CosineBBoxHead, CosineLinear
from cissod_bench.baselines.crest.alignment import DistributionAlignment
from cissod_bench.baselines.crest.self_training import SelfTrainingHook
from cissod_bench.baselines.daso import SemanticBlend
from cissod_bench.baselines.defrcn.heads import DecoupledRoIHead, DecoupledRPNHead, DropoutLinear
from cissod_bench.baselines.defrcn.stages import TwoStageHook
from cissod_bench.baselines.eqlv2 import EqualizationLossV2
from cissod_bench.baselines.focal import SoftmaxFocal
from cissod_bench.baselines.seesaw import CountingSeesawLoss
from cissod_bench.methods.gbs.crs_hook import RebalancingHook
from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.methods.gbs.gbt import ClassThreshold
from cissod_bench.methods.rank_threshold import RankThreshold
from cissod_bench.ssod import mmcv_shim
from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.damaged import DamagedImagesHook, LoadWholeImage
from cissod_bench.ssod.data.dataset import SeededConcatDataset
from cissod_bench.ssod.data.sampler import SemiSampler
from cissod_bench.ssod.hooks.checkpoints import AtomicCheckpointHook
from cissod_bench.ssod.hooks.compiled import CompileHook
from cissod_bench.ssod.hooks.diagnostics import DiagnosticsHook
from cissod_bench.ssod.hooks.iteration import FiniteLossHook, SamplerStateHook, StopwatchHook, TeacherStudentHook
from cissod_bench.ssod.hooks.logs import ResumableLogsHook, ScalarLog, TensorboardLog
from cissod_bench.ssod.hooks.progress import ProgressHook, ThroughputHook
from cissod_bench.ssod.hooks.scalars import ScalarsHook
from cissod_bench.ssod.loop import TrainLoop
from cissod_bench.ssod.metric import GroupAP
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper
from cissod_bench.ssod.randomness import IterationSeedHook
from cissod_bench.ssod.stopping import deaf_worker
from cissod_bench.ssod.thresholds import FixedThreshold

NAMES: dict[str, Callable[..., Any]] = {
    "AngularMarginLoss": AngularMarginLoss,
    "AtomicCheckpointHook": AtomicCheckpointHook,
    "ClassScoresBBoxHead": ClassScoresBBoxHead,
    "ClassThreshold": ClassThreshold,
    "CompileHook": CompileHook,
    "CosineBBoxHead": CosineBBoxHead,
    "CosineLinear": CosineLinear,
    "CountingSeesawLoss": CountingSeesawLoss,
    "DamagedImagesHook": DamagedImagesHook,
    "DecoupledRPNHead": DecoupledRPNHead,
    "DecoupledRoIHead": DecoupledRoIHead,
    "DistributionAlignment": DistributionAlignment,
    "DropoutLinear": DropoutLinear,
    "EqualizationLossV2": EqualizationLossV2,
    "FiniteLossHook": FiniteLossHook,
    "FixedThreshold": FixedThreshold,
    "FrameOptimWrapper": MixedPrecisionOptimWrapper,
    "GradientReweightedFocalLoss": GradientReweightedFocalLoss,
    "GroupAP": GroupAP,
    "IterationSeedHook": IterationSeedHook,
    "LoadWholeImage": LoadWholeImage,
    "ObservablesHook": DiagnosticsHook,
    "ProgressHook": ProgressHook,
    "RankThreshold": RankThreshold,
    "RebalancingHook": RebalancingHook,
    "ResumableLogsHook": ResumableLogsHook,
    "SamplerStateHook": SamplerStateHook,
    "ScalarLog": ScalarLog,
    "ScalarsHook": ScalarsHook,
    "SeededConcatDataset": SeededConcatDataset,
    "SelfTrainingHook": SelfTrainingHook,
    "SemanticBlend": SemanticBlend,
    "SemiSampler": SemiSampler,
    "SoftmaxFocal": SoftmaxFocal,
    "StopwatchHook": StopwatchHook,
    "TeacherStudent": TeacherStudent,
    "TeacherStudentHook": TeacherStudentHook,
    "TensorboardLog": TensorboardLog,
    "ThroughputHook": ThroughputHook,
    "TrainLoop": TrainLoop,
    "TwoStageHook": TwoStageHook,
    "deaf_worker": deaf_worker,
    "cissod_bench.ssod.precision.FrameOptimWrapper": MixedPrecisionOptimWrapper,  # between the versions
}
"""Every name under which version 0.1 registered a component that a configuration can hold, and paths that changed."""
_REGISTERING_MODULE = "cissod_bench.engine.plugins"


def in_todays_terms(value: Any) -> Any:
    """A configuration, or a part of one, with the paths of components and today's imports; today's own is unchanged.

    A user's own classes keep their names: the method's file registers them.
    """
    if isinstance(value, dict):
        translated = {key: in_todays_terms(inner) for key, inner in value.items()}
        if value.get("type") in NAMES:
            translated["type"] = component(NAMES[value["type"]])["type"]
        return translated
    if isinstance(value, list | tuple):
        return type(value)(in_todays_terms(inner) for inner in value)
    return mmcv_shim.__name__ if value == _REGISTERING_MODULE else value
