"""The cache: the same columns, one reading for any number of runs, never an error of its own."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.coco import cache
from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import Read, SourceFile, read_coco
from cissod_bench.io import MARKER, sha256_file
from tests.toy import toy_data


class Counting:
    """A reader that counts how often it reads."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> tuple[Columns, SourceFile]:
        self.count += 1
        return read_coco(path)


def reading(read: Read, path: Path) -> tuple[Columns, SourceFile]:
    """Read, and wait until the columns are kept."""
    found = read(path)
    for thread in threading.enumerate():
        if thread.name == cache.KEEPING:
            thread.join()
    return found


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    return tmp_path / "toy.json"


def same(first: Columns, second: Columns) -> bool:
    for name in cache._ARRAYS:
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    rows = np.arange(first.num_images)
    for name in cache._STRINGS:
        assert getattr(first, name).take(rows) == getattr(second, name).take(rows)
    return first.categories == second.categories and first.digest == second.digest


def test_the_second_reading_comes_from_the_cache(annotations: Path, tmp_path: Path) -> None:
    reader = Counting()
    read = cache.cached(reader, tmp_path / "cache", smallest=0)
    columns, source = read(annotations)
    again, source_again = read(annotations)
    assert reader.count == 1
    assert source == source_again
    assert same(columns, again)


def test_a_touched_or_copied_file_is_found_a_changed_one_is_read(annotations: Path, tmp_path: Path) -> None:
    reader = Counting()
    read = cache.cached(reader, tmp_path / "cache", smallest=0)
    reading(read, annotations)
    os.utime(annotations, (1, 1))
    read(annotations)
    (tmp_path / "copy.json").write_bytes(annotations.read_bytes())
    assert read(tmp_path / "copy.json")[1].name == "copy.json"
    assert reader.count == 1
    annotations.write_text(json.dumps(toy_data(seed=1)))
    columns, _ = read(annotations)
    assert reader.count == 2
    assert same(columns, read_coco(annotations)[0])


def test_small_files_and_other_variants_are_apart(annotations: Path, tmp_path: Path) -> None:
    reader = Counting()
    for _ in range(2):
        cache.cached(reader, tmp_path / "cache")(annotations)
    assert reader.count == 2
    for variant in ("", "lvis", "", "lvis"):
        cache.cached(reader, tmp_path / "cache", variant, smallest=0)(annotations)
    assert reader.count == 4


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "note"])
def test_a_damaged_entry_is_made_again(annotations: Path, tmp_path: Path, damage: str) -> None:
    reader = Counting()
    read = cache.cached(reader, tmp_path / "cache", smallest=0)
    reading(read, annotations)
    columns, _ = read_coco(annotations)
    boxes = next((tmp_path / "cache").glob("*/boxes.npy"))
    if damage == "missing":
        boxes.unlink()
    elif damage == "note":
        next((tmp_path / "cache").glob("*.json")).write_text("{")
    else:
        boxes.write_bytes(boxes.read_bytes()[: 200 if damage == "cut" else 0])
    assert same(read(annotations)[0], columns)
    assert same(read(annotations)[0], columns)
    assert reader.count == (1 if damage == "note" else 2)


@pytest.mark.parametrize("name", cache._NAMES)
@pytest.mark.parametrize("damage", ["bit", "short", "longer", "type"])
def test_a_flipped_bit_or_another_length_of_a_column_is_noticed(
    annotations: Path, tmp_path: Path, name: str, damage: str
) -> None:
    reader = Counting()
    read = cache.cached(reader, tmp_path / "cache", smallest=0)
    columns, _ = reading(read, annotations)
    (path,) = (tmp_path / "cache").glob(f"*/{name}.npy")
    array = np.load(path)
    if not array.size:
        pytest.skip("an empty column")
    if damage == "bit":
        array.view(np.uint8).reshape(-1)[-1] ^= 4
    elif damage == "type":
        array = array.astype(np.float32)
    else:
        array = array[:-1] if damage == "short" else np.concatenate([array, array[-1:]])
    np.save(path, array)
    assert same(reading(read, annotations)[0], columns)
    assert reader.count == 2


@pytest.mark.parametrize("sha256", ["/../../victim", "../../victim", "a" * 63, "A" * 64, "a" * 64 + "\\n", ""])
def test_a_note_cannot_lead_out_of_the_cache(annotations: Path, tmp_path: Path, sha256: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "b.txt").write_text("precious")
    read = cache.cached(read_coco, tmp_path / "cache", smallest=0)
    columns, _ = reading(read, annotations)
    (note,) = (tmp_path / "cache").glob("*.json")
    status = annotations.stat()
    note.write_text(f'{{"size": {status.st_size}, "mtime_ns": {status.st_mtime_ns}, "sha256": "{sha256}"}}')
    (tmp_path / "cache" / f"v{cache.VERSION}-").mkdir()
    assert same(reading(read, annotations)[0], columns)
    assert (victim / "b.txt").read_text() == "precious"


def test_a_lock_that_is_a_link_empties_nothing(annotations: Path, tmp_path: Path) -> None:
    reading(cache.cached(read_coco, tmp_path / "cache", smallest=0), annotations)
    (lock,) = (tmp_path / "cache").glob("*.lock")
    (tmp_path / "victim").write_text("precious")
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    read_again = cache.cached(read_coco, tmp_path / "cache", smallest=0)(annotations)[0]
    assert same(read_again, read_coco(annotations)[0])
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_half_written_entry_of_a_killed_process_is_cleared(annotations: Path, tmp_path: Path) -> None:
    read = cache.cached(read_coco, tmp_path / "cache", smallest=0)
    columns, _ = read_coco(annotations)
    staging = tmp_path / "cache" / f".v{cache.VERSION}-{sha256_file(annotations)}.x.partial"
    (staging / "new").mkdir(parents=True)
    (staging / MARKER).touch()
    (staging / "new" / "boxes.npy").write_text("half")
    assert same(reading(read, annotations)[0], columns)
    assert not staging.exists()
    assert same(read(annotations)[0], columns)


def test_a_cache_that_cannot_be_written_is_no_error(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert same(cache.cached(read_coco, tmp_path / "file", smallest=0)(annotations)[0], read_coco(annotations)[0])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    read = cache.cached(read_coco, tmp_path / "full", smallest=0)
    assert same(reading(read, annotations)[0], read_coco(annotations)[0])
    assert not list((tmp_path / "full").glob("*v2*"))


CACHED = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from cissod_bench.coco.cache import VERSION, cached
from cissod_bench.coco.reader import read_coco
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
else:
    save = np.save
    def save_and_die(path, column):
        save(path, column)
        if path.name == "boxes.npy":
            os.kill(os.getpid(), signal.SIGKILL)
    np.save = save_and_die
print(cached(read_coco, Path(sys.argv[2]), smallest=0)(Path(sys.argv[1]))[0].digest)
"""


def run_cached(annotations: Path, folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CACHED, str(annotations), str(folder), how]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_disk_that_is_full_keeps_nothing_and_the_file_is_read_once(annotations: Path, tmp_path: Path) -> None:
    result = run_cached(annotations, tmp_path / "cache", "full")
    assert result.stdout.strip() == read_coco(annotations)[0].digest, result.stderr
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


def test_a_disk_that_fills_up_does_not_make_it_read_again(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    reader = Counting()
    read = cache.cached(reader, tmp_path / "cache", smallest=0)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        reading(read, annotations)
    assert reader.count == 1
    reading(read, annotations)
    os.utime(annotations, (1, 1))
    monkeypatch.setattr(cache, "write_bytes", full)
    reading(read, annotations)
    assert reader.count == 2


def test_killed_while_it_is_kept(annotations: Path, tmp_path: Path) -> None:
    assert run_cached(annotations, tmp_path / "cache", "kill").returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob(".*.partial"))
    columns, _ = read_coco(annotations)
    assert same(reading(cache.cached(read_coco, tmp_path / "cache", smallest=0), annotations)[0], columns)
    assert not list((tmp_path / "cache").glob(".*"))
    assert len(list((tmp_path / "cache").glob("v*"))) == 1


def _read_in_process(arguments: tuple[str, str]) -> str:
    annotations, folder = map(Path, arguments)
    return cache.cached(read_coco, folder, smallest=0)(annotations)[0].digest


def test_two_processes_at_once(annotations: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_read_in_process, [(str(annotations), str(tmp_path / "cache"))] * 4, chunksize=1)
    assert set(found) == {read_coco(annotations)[0].digest}
    assert len(list((tmp_path / "cache").glob(f"v{cache.VERSION}-*"))) == 1
    assert not list((tmp_path / "cache").glob(".*"))
