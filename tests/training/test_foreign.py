"""A stranger's run folder, checkpoint and class names are data: payloads are planted, and no marker appears."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from cissod_bench.errors import UserError
from cissod_bench.results.run_folder import parse_config
from cissod_bench.ssod.checkpoint_reading import load_checkpoint, not_admitted
from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import Segment
from cissod_bench.ssod.hooks.checkpoints import is_whole, newest_readable, read_config
from cissod_bench.training.build_config import PlainConfig
from cissod_bench.training.trained.predict import foreign_code


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("field", ["state_dict", "meta", "message_hub", "sampler", "anything"])
def test_a_checkpoint_is_never_executed(tmp_path: Path, field: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "iter_3.pth"
    torch.save({"meta": {"cfg": "a = 1"}, "state_dict": {}} | {field: {"a": Payload(marker)}}, path)
    assert not is_whole(path)
    with pytest.raises(UserError, match="none of the 1 checkpoints can be read"):
        newest_readable(tmp_path)
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        read_config(path)
    with pytest.raises(UserError, match="holds more than weights and plain data"):
        CheckpointLoader.load_checkpoint(str(path), "cpu")  # as the runner and `init_cfg` load
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload works"


@pytest.mark.parametrize(
    "calls",
    [
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nX\x06\x00\x00\x00tofiletR.",
        b"cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nX\x08\x00\x00\x00__init__tR.",
        b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.",
        b"cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    ],
)
def test_what_stands_in_for_builtins_does_nothing_else(tmp_path: Path, calls: bytes) -> None:
    torch.save({"a": 1}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for entry in plain.infolist():
            own = entry.filename.endswith("data.pkl")
            archive.writestr(entry.filename, b"\x80\x02" + calls if own else plain.read(entry))
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        load_checkpoint(tmp_path / "a.pth")


def test_what_our_checkpoints_hold_is_read_back(tmp_path: Path) -> None:
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    boxes = PseudoBoxes(
        *(np.ones(shape, kind) for shape, kind in (((2), "i4"), ((2), "i2"), ((2, 4), "f4"), ((2), "f4")))
    )
    segment = Segment(4, np.arange(3, dtype=np.int32), PromotedLabels(boxes, np.array([True, False])))
    state = {
        "hub": history,
        "sampler": [segment],
        "empty": np.empty(0, np.int16),
        "number": np.float64(0.5),
        "t": ("a", None),
    }
    torch.save(state, tmp_path / "a.pth")
    assert not_admitted(tmp_path / "a.pth") == []
    found = load_checkpoint(tmp_path / "a.pth")
    assert found["hub"].mean() == 2.0
    assert found["sampler"][0].start == 4
    assert found["sampler"][0].labels.boxes.box.tolist() == boxes.box.tolist()
    assert found["empty"].dtype == np.int16
    assert (found["number"], found["t"]) == (0.5, ("a", None))
    torch.save({"path": Path("a")}, tmp_path / "b.pth")
    assert not_admitted(tmp_path / "b.pth") == ["pathlib.PosixPath"]


NAMES = [
    "{{$HOME:car}}",
    "{{ fileDirname }}",
    "{{_base_.x}}",
    "{{{a}}}",
    "}}__import__('os').mkdir('marker'),#",
    "'); import os; os.mkdir('marker') #",
    "\\{{$Q9:car\n}}",
    '"""',
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_configuration_stays_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mmdet loads a published bundle, and as we read a run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q9", "'); __import__('os').mkdir('marker') #")
    (tmp_path / "config.py").write_text(PlainConfig({"classes": (name, "b"), "a": {"b": {"c": name}}}).pretty_text)
    found = Config.fromfile(tmp_path / "config.py")
    assert found.classes == (name, "b")
    assert found.a.b.c == name
    assert parse_config((tmp_path / "config.py").read_text()) == {"classes": (name, "b"), "a": {"b": {"c": name}}}
    assert not (tmp_path / "marker").exists()


def settings(**model: Any) -> dict[str, Any]:
    pipeline = [{"type": "cissod_bench.ssod.data.damaged.LoadWholeImage"}, {"type": "PackDetInputs"}]
    kind = "cissod_bench.ssod.model.teacher_student.TeacherStudent"
    return {
        "custom_imports": {"imports": ["cissod_bench.ssod.mmcv_shim"]},
        "model": {"type": kind, "detector": {"type": "FasterRCNN"}, **model},
        "test_dataloader": {"dataset": {"pipeline": pipeline}},
    }


@pytest.mark.parametrize(
    "model",
    [
        {"detector": {"type": "subprocess.Popen", "args": ["touch", "marker"]}},
        {"losses": [{"inner": ({"type": "os.mkdir", "path": "marker"},)}]},
        {"detector": {"type": "mmengine.utils.package_utils.call_command", "cmd": ["touch", "marker"]}},
        {"detector": {"type": "cissod_bench.io.write_text", "target": "marker", "content": ""}},
        {"detector": {"type": "cissod_bench.io.os.mkdir", "path": "marker"}},
        {"detector": {"type": "FasterRCNN", "_scope_": "evil"}},
        {"method_file": "method.py"},
    ],
)
def test_a_configuration_that_would_execute_something_has_to_be_trusted(model: dict[str, Any]) -> None:
    assert foreign_code(settings()) == []
    assert len(foreign_code(settings(**model))) == 1


def test_modules_of_others_have_to_be_trusted() -> None:
    config = settings() | {"custom_imports": {"imports": ["cissod_bench.ssod.mmcv_shim", "antigravity"]}}
    assert foreign_code(config) == ["module antigravity"]
