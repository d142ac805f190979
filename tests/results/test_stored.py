"""Runs that version 0.1 of the program left (`stored/run_v1`) are read, compared and shown as today's."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cissod_bench.errors import UserError
from cissod_bench.launch.status import Member, RunState, state_of
from cissod_bench.results.collection import collect_results
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.results.run_key import key_differences
from cissod_bench.ssod.checkpoint_reading import load_checkpoint
from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import Segment
from cissod_bench.training.build_config import build_config
from cissod_bench.training.config_diff import differences
from cissod_bench.training.job import resolve_job
from cissod_bench.training.runner import check_same
from cissod_bench.training.spec import RunSpec, run_key

STORED = Path(__file__).parent / "stored" / "run_v1"
SPLIT = "417c76ef4242ee0e5e07469077f6ef10302d5fbb166298df53c360e7e671dcb8"


def asked(tiny: Path, out: Path, **changes: object) -> RunSpec:
    """The spec of the stored run, by the words of its command line."""
    return RunSpec(
        **{
            "task": str(tiny / "task.toml"), "method": "gbs", "options": {"beta": "0.80", "crs": "false"},
            "split": tiny / "split", "data_root": tiny, "out": out, "iterations": 2, "device": "cpu", "threads": 1,
            "overrides": {"optim_wrapper.optimizer.lr": 0.002}, **changes,
        }
    )  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "run"))


def test_the_record_says_what_the_run_is(out: Path, tiny: Path) -> None:
    record = RunFolder(out).result()
    assert (record.schema_version, record.key.method_options) == (1, {"beta": 0.8, "crs": False})
    assert (record.key.split_digest, record.key.batch, record.key.train_seed) == (SPLIT, (4, 2), 0)
    assert state_of(Member("run", out.parent, asked(tiny, out))) == RunState("done")
    other = state_of(Member("run", out.parent, asked(tiny, out, options={"beta": 0.9, "crs": False}, seed=1)))
    assert other.reason == ("holds another run: train_seed is 0, not 1; method_options.beta is 0.8, not 0.9")
    with pytest.raises(UserError, match=r"per_class.npz, the scores by class that its record names, is missing"):
        collect_results([out.parent])
    content = json.loads(RunFolder(out).record.read_text())
    del content["files"]["per_class"]  # not stored here
    RunFolder(out).record.write_text(json.dumps(content))
    assert list(collect_results([out.parent]).to_frame()["group"]) == ["all", "maj", "min"]


def test_the_configuration_says_it_in_other_names(out: Path, tiny: Path) -> None:
    folder = RunFolder(out)
    folder.record.unlink()
    assert folder.held() is None, "there is nothing to continue from"
    folder.checkpoints.mkdir()
    (folder.checkpoints / "iter_1.pth").touch()
    held = folder.held()
    assert held is not None
    assert held == {
        "task": "tiny", "protocol": 1, "split_digest": SPLIT, "method": "gbs", "detector": "r18-small",
        "validation_digest": "bb449a705ddb169c85441672571707470051df23689bab24ce86e9fd4828cfb7",
        "method_options": {"beta": 0.8, "crs": False}, "backbone": None, "schedule": "paper", "iterations": 2,
        "batch": [4, 2], "train_seed": 0, "overrides": {"optim_wrapper.optimizer.lr": 0.002},
    }  # fmt: skip
    state = state_of(Member("run", out.parent, asked(tiny, out)))
    assert (state.state, state.reason.split(",")[0]) == ("another run", "holds an unfinished run of version 0.1")
    assert state_of(Member("run", out.parent, asked(tiny, out, iterations=3))).state == "another run"
    assert key_differences(held, {"iterations": 3, "compile": True}) == ["iterations is 2, not 3"]


def test_what_its_checkpoints_hold_is_found(tmp_path: Path) -> None:
    """Objects of classes that have moved since, under the names that they had then."""
    boxes = PseudoBoxes.joined([])
    held = {
        "sampler": [Segment(0, np.zeros(3, dtype=np.int32))],
        "labels": PromotedLabels(boxes, np.zeros(0, dtype=bool)),
    }
    torch.save(held, tmp_path / "now.pth")
    names = {
        b"cissod_bench.ssod.data.sampler\nSegment\n": b"cissod_bench.engine.sampler\nSegment\n",
        b"cissod_bench.ssod.data.pseudo_boxes\nPromotedLabels\n": b"cissod_bench.methods.found_boxes\nJoiningLabels\n",
        b"cissod_bench.ssod.data.pseudo_boxes\nPseudoBoxes\n": b"cissod_bench.methods.found_boxes\nFoundBoxes\n",
    }
    with zipfile.ZipFile(tmp_path / "now.pth") as now, zipfile.ZipFile(tmp_path / "then.pth", "w") as then:
        for entry in now.infolist():
            content = now.read(entry)
            if entry.filename.endswith("data.pkl"):
                for new, old in names.items():
                    assert new in content
                    content = content.replace(new, old)
            then.writestr(entry, content)
    found = load_checkpoint(tmp_path / "then.pth", mmap=False)
    assert type(found["sampler"][0]) is Segment
    assert type(found["labels"]) is PromotedLabels
    assert type(found["labels"].boxes) is PseudoBoxes


def test_a_run_of_today_is_the_same_run(out: Path, tiny: Path) -> None:
    job = resolve_job(asked(tiny, out))
    assert run_key(job.spec) == job.key
    text = build_config(job).pretty_text
    assert differences(RunFolder(out).config.read_text(), text) == []
    check_same(RunFolder(out), text)
    with pytest.raises(UserError, match=r"holds another run: train_seed is 0, not 1; .*seed is 0, not 1"):
        check_same(RunFolder(out), build_config(resolve_job(asked(tiny, out, seed=1))).pretty_text)
