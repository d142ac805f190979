"""What is asked for, what the run then is, and what its folder is called."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cissod_bench.errors import UserError
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.grid import spec_of
from cissod_bench.methods.options import describe_options, options_alone
from cissod_bench.methods.registry import METHODS
from cissod_bench.training.spec import RunSpec, decode_spec, default_out, encode_spec, run_key

ALL: dict[str, Any] = {
    "task": "shapes", "method": "gbs", "preset": "release", "options": {"beta": 0.25, "crs": "false", "theta": None},
    "split": "s", "out": "o", "data_root": "d", "schedule": "short", "iterations": 7, "detector": "r18-medium",
    "backbone": "b.pth", "seed": 3, "evaluator": "pycocotools", "hidden": "h.json", "device": "cpu", "workers": 1,
    "threads": 2, "precision": "bf16", "compile": True, "gpus": 2, "nodes": 3, "overrides": {"a.b": 0.5, "c": "x"},
    "loggers": ["wandb"], "damaged_images": 4, "evaluations": 5, "ablation": "gbr", "batch": "2+3", "accumulate": 6,
    "fixed_ap": True,
}  # fmt: skip


def spec(**changes: Any) -> RunSpec:
    return RunSpec(**({"task": "shapes", "method": "gbs"} | changes))


def test_a_spec_is_checked_immutable_and_comes_back_from_json() -> None:
    assert ALL.keys() == set(RunSpec.__struct_fields__), "every field is tried"
    full = RunSpec(**ALL)
    assert full.split == Path("s")
    assert full.loggers == ("wandb",)
    assert decode_spec(encode_spec(full)) == full
    with pytest.raises(AttributeError):
        full.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seed": -1}, r"seed=-1: Expected `int` >= 0"),
        ({"seed": "0"}, r"seed='0': Expected `int`, got `str`"),
        ({"iterations": 0}, "iterations=0"),
        ({"workers": 9}, "workers=9"),
        ({"split": 3}, "split=3: Expected `path`, got `int`"),
        ({"options": ["beta=1"]}, "options="),
    ],
)
def test_a_value_that_cannot_be_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(UserError, match=error):
        spec(**change)


def test_the_arguments_of_a_spec_ask_for_the_same_run() -> None:
    """Read by the parser of `run` itself."""
    from cissod_bench.cli.sweep import shared_options

    full = RunSpec(**{name: value for name, value in ALL.items() if name not in ("ablation", "out")})
    words = run_arguments(full)
    assert words[:2] == ["--task", "shapes"]
    given = shared_options(words[2:])
    read = spec_of({"task": "shapes", **given})
    assert msgspec.structs.replace(read, options=full.options) == full
    assert METHODS["gbs"].options(read.options) == METHODS["gbs"].options(full.options)


def folder(**changes: Any) -> str:
    return str(default_out(spec(**changes)))


def test_the_name_of_the_folder_comes_from_parsed_options() -> None:
    plain = "shapes/gbs-paper-seed-0"
    for options in ({}, {"beta": "0.5"}, {"beta": "0.50"}, {"beta": 0.5}, {"crs": "true"}, {"generations": "10"}):
        assert folder(options=options) == plain, options
    assert folder(options={"theta": "0.80", "beta": "0.7"}) == "shapes/gbs-beta=0.7-theta=0.8-paper-seed-0"
    assert folder(options={"beta": "0.7", "theta": 0.8}) == "shapes/gbs-beta=0.7-theta=0.8-paper-seed-0", "sorted"
    assert folder(options={"crs": "false"}, iterations=5, seed=2) == "shapes/gbs-crs=false-5-seed-2"
    assert folder(method="defrcn", options={"pcb": "/data/r101.pth"}) == "shapes/defrcn-pcb=data_r101.pth-paper-seed-0"
    assert folder(overrides={"b": "x y/z", "a": 1}) == "shapes/gbs-a=1-b=x_y_z-paper-seed-0"
    assert folder(method=None, ablation="gbr", options={"crs": "false"}) == "shapes/gbr-paper-seed-0"
    assert folder(options={"nonsense": "a/b"}) == "shapes/gbs-nonsense=a_b-paper-seed-0", "the run says what is wrong"


def test_a_name_is_not_longer_than_file_systems_allow() -> None:
    names = {folder(overrides={f"model.setting_{index}": last for index in range(40)}) for last in (1, 2)}
    assert len(names) == 2
    assert all(len(Path(name).name) < 255 for name in names)


def test_how_an_option_is_written_does_not_change_what_the_run_is(tiny: Path) -> None:
    def key(**options: Any) -> Any:
        return run_key(spec(task=str(tiny / "task.toml"), split=tiny / "split", data_root=tiny, options=options))

    assert key() == key(beta="0.5") == key(beta="0.50") == key(beta=0.5)
    assert key(beta="0.8").method_options == {"beta": 0.8}
    defaults = msgspec.structs.asdict(METHODS["gbs"].options({}))
    assert key(beta="0.8").resolved_options == msgspec.to_builtins(defaults) | {"beta": 0.8}
    assert key().method_version == METHODS["gbs"].version == 2
    assert key(beta="0.8") != key()


def test_what_a_run_is_needs_neither_torch_nor_mmdet(tiny: Path) -> None:
    code = f"""
import sys, time
from cissod_bench.training.spec import RunSpec, default_out, run_key
spec = RunSpec(task={str(tiny / "task.toml")!r}, method="daso", split={str(tiny / "split")!r}, options={{"queue": "9"}})
started = time.perf_counter()
assert run_key(spec).method_options == {{"queue": 9}}
assert str(default_out(spec)) == "tiny/daso-queue=9-paper-seed-0"
print(time.perf_counter() - started)
assert not [name for name in ("torch", "mmdet", "mmengine", "mmcv") if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1, "0.02 s where nothing else runs"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_options_alone_are_those_of_the_module(method: Any) -> None:
    alone, whole = options_alone(method).options({}), method.options({})
    assert msgspec.structs.asdict(alone) == msgspec.structs.asdict(whole)
    assert [str(field.type) for field in msgspec.structs.fields(alone)] == [
        str(field.type) for field in msgspec.structs.fields(whole)
    ]
    described = describe_options(method)
    assert [option.name for option in described] == list(msgspec.structs.asdict(whole))
    assert all(option.about for option in described)
