"""The split folder: written at once, read back, and refused when anything in it is not what was written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.splits.folder import (
    SplitRecord,
    damaged_files,
    load_split,
    manifest_digest,
    read_manifest,
    seal_split,
    statistics_of,
    write_ids,
)
from cissod_bench.splits.staging import staged_split

RECORD = SplitRecord(
    task="toy",
    protocol=1,
    seed=3,
    options={"fraction": 0.5, "floor": 2},
    source={"content": "0" * 64, "images": 5, "boxes": 2},
    classes=[{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}],
    groups={"maj": ["cat"], "min": ["dog"]},
    counts={"labeled_images": 3, "unlabeled_images": 2},
)


def write_toy(folder: Path, *, replace: bool = False, seed: int = 3) -> None:
    with staged_split(folder, replace=replace) as staging:
        (staging / "labeled.json").write_text('{"images": []}')
        (staging / "unlabeled.json").write_text('{"images": [], "annotations": []}')
        (staging / "source.json").write_text("{}")
        for role, ids in (("majority", [30, 4]), ("minority", [11]), ("unlabeled", [5, 6])):
            write_ids(staging / "ids" / f"{role}.txt", np.array(ids))
        seal_split(staging, SplitRecord(**{**RECORD.__dict__, "seed": seed}))


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    write_toy(tmp_path / "split")
    split = load_split(tmp_path / "split")
    assert (split.task, split.protocol, split.seed, split.options["floor"]) == ("toy", 1, 3, 2)
    assert split.class_names == ("cat", "dog")
    assert split.groups == {"maj": ("cat",), "min": ("dog",)}
    assert split.majority_ids.tolist() == [4, 30]
    assert split.labeled_ids.tolist() == [4, 11, 30]
    assert split.unlabeled_ids.tolist() == [5, 6]
    assert split.validation_file is None
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


@pytest.mark.parametrize("name", ["labeled.json", "unlabeled.json", "ids/majority.txt"])
def test_a_changed_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    write_toy(tmp_path / "split")
    path = tmp_path / "split" / name
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=name):
        load_split(tmp_path / "split")
    path.unlink()
    assert damaged_files(tmp_path / "split", read_manifest(tmp_path / "split")) == [name]


def test_the_source_record_is_outside_the_digest(tmp_path: Path) -> None:
    write_toy(tmp_path / "split")
    digest = load_split(tmp_path / "split").digest
    (tmp_path / "split" / "source.json").write_text('{"size": 1}')
    assert load_split(tmp_path / "split").digest == digest


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    write_toy(tmp_path / "split")
    path = tmp_path / "split" / "split.json"
    content = json.loads(path.read_text())
    content["seed"] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was altered"):
        load_split(tmp_path / "split")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": "x"}', "\xff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"split\.json"):
        load_split(tmp_path)


def test_a_folder_without_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no split"):
        load_split(tmp_path)


def test_another_split_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_toy(tmp_path / "split")
    with pytest.raises(UserError, match="already holds another split"):
        write_toy(tmp_path / "split", seed=4)
    assert load_split(tmp_path / "split").seed == 3
    write_toy(tmp_path / "split", seed=4, replace=True)
    assert load_split(tmp_path / "split").seed == 4
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


def test_files_of_the_user_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no split"):
        write_toy(tmp_path / "a", replace=True)
    write_toy(tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt"):
        write_toy(tmp_path / "b", replace=True)
    assert (tmp_path / "b" / "notes.txt").read_text() == "x"


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write_to_a_full_disk() -> None:
        with staged_split(tmp_path / "split") as staging:
            (staging / "labeled.json").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write_to_a_full_disk()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from cissod_bench.splits.staging import staged_split
with staged_split(Path(sys.argv[1]), replace=True) as staging:
    (staging / "labeled.json").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_kill_while_writing_keeps_the_old_split_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    write_toy(tmp_path / "split")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "split")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    with pytest.raises(UserError, match="another process"):
        write_toy(tmp_path / "split", replace=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert load_split(tmp_path / "split").seed == 3
    write_toy(tmp_path / "split", replace=True, seed=5)
    assert load_split(tmp_path / "split").seed == 5
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


def reseal(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest as somebody would who knows how its digest is made."""
    content = json.loads((folder / "split.json").read_text())
    change(content["outputs"])
    content["digest"] = manifest_digest(content)
    (folder / "split.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/etc/passwd", "../victim.json", "ids/../../victim.json", "a\0b", "", ".", "./x", "a//b"]
)
def test_a_manifest_names_only_what_is_in_the_folder(tmp_path: Path, name: str) -> None:
    write_toy(tmp_path / "split")
    (tmp_path / "victim.json").write_text("{}")
    reseal(tmp_path / "split", lambda outputs: outputs.update({name: "0" * 64}))
    with pytest.raises(UserError, match="not the name of a file in the folder"):
        load_split(tmp_path / "split")


@pytest.mark.parametrize("name", ["labeled.json", "unlabeled.json", "ids/majority.txt", "ids/unlabeled.txt"])
def test_a_manifest_lists_every_file_that_training_sees(tmp_path: Path, name: str) -> None:
    write_toy(tmp_path / "split")
    reseal(tmp_path / "split", lambda outputs: outputs.pop(name))
    with pytest.raises(UserError, match=f"does not list {name}"):
        load_split(tmp_path / "split")


@pytest.mark.parametrize("name", ["val.json", "ids/validation.txt", "data/train.json", "data/val.json"])
def test_a_file_that_was_put_into_the_folder_later_is_refused(tmp_path: Path, name: str) -> None:
    write_toy(tmp_path / "split")
    (tmp_path / "split" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "split" / name).write_text("{}")
    with pytest.raises(UserError, match=f"does not list {name}"):
        load_split(tmp_path / "split")


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
@pytest.mark.parametrize("name", ["split.json", "labeled.json", "ids/minority.txt"])
def test_pipes_and_devices_in_a_split_folder_are_not_opened(tmp_path: Path, name: str, kind: str) -> None:
    write_toy(tmp_path / "split")
    path = tmp_path / "split" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else "/dev/null")
    with pytest.raises(UserError, match=name):
        load_split(tmp_path / "split")


@pytest.mark.parametrize("text", ["[]", "{", '{"classes": []}', '{"classes": [{"name": "a"}], "groups": {}}', "\xff"])
def test_damaged_statistics_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "statistics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"statistics\.json cannot be read: .* Make the split again"):
        statistics_of(tmp_path)
