"""Configurations of version 0.1 are today's, but for the names of components."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mmengine.config import Config

from cissod_bench.methods.registry import METHODS
from cissod_bench.training.build_config import build_config
from cissod_bench.training.earlier_configs import NAMES, in_todays_terms
from tests.tiny import tiny_job

OPTIONS: dict[str, dict[str, str]] = {"crest": {"align": "true"}, "gbs": {"threshold": "labelmatch"}}
RENAMED = {"DiagnosticsHook": "ObservablesHook", "MixedPrecisionOptimWrapper": "FrameOptimWrapper"}
PLUGINS = "cissod_bench.engine.plugins"


def as_version_0_1_wrote_it(value: Any) -> Any:
    """Registered names, which were the classes' own, in place of paths."""
    if isinstance(value, dict):
        return {key: as_version_0_1_wrote_it(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_version_0_1_wrote_it(inner) for inner in value)
    if value == "cissod_bench.ssod.mmcv_shim":
        return PLUGINS
    if isinstance(value, str) and value.startswith("cissod_bench."):
        name = value.rpartition(".")[2]
        return RENAMED.get(name, name)
    return value


@pytest.mark.parametrize("method", METHODS)
def test_every_component_of_every_method_is_translated(method: str, tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path, method=method, options=OPTIONS.get(method, {}))
    job = replace(job, spec=msgspec.structs.replace(job.spec, compile=True))  # without a compiler
    today = build_config(job).to_dict()
    for loader in ("val_dataloader", "test_dataloader"):
        del today[loader]["batch_sampler"]  # not in version 0.1
    earlier = as_version_0_1_wrote_it(today)
    assert PLUGINS in earlier["custom_imports"]["imports"]
    assert "cissod_bench." not in Config(earlier).pretty_text.replace(PLUGINS, "")
    assert in_todays_terms(earlier) == today
    assert in_todays_terms(today) == today


def test_a_users_own_names_stay() -> None:
    mine = {"type": "MyLoss", "inner": [{"type": "TeacherStudent"}]}
    assert in_todays_terms(mine)["type"] == "MyLoss"
    assert in_todays_terms(mine)["inner"][0]["type"] == "cissod_bench.ssod.model.teacher_student.TeacherStudent"
    assert len(NAMES) == 43


def test_a_path_of_before_the_renaming_is_translated() -> None:
    wrapper = in_todays_terms({"type": "cissod_bench.ssod.precision.FrameOptimWrapper", "precision": "bf16"})
    assert wrapper == {"type": "cissod_bench.ssod.precision.MixedPrecisionOptimWrapper", "precision": "bf16"}
