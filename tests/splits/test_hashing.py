"""The digest that another process computes: hashlib's, of the bytes that were read, and no process left behind."""

import gc
import gzip
import hashlib
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_make import toy_data
from test_workers import children, needs_proc

from cissod_bench.errors import UserError
from cissod_bench.splits import reader
from cissod_bench.splits.hashing import FileDigest
from cissod_bench.splits.reader import read_coco


def hashing(path: Path) -> FileDigest:
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        file.read(10)
        return FileDigest(path, file, status)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=300)))
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_large_file_has_the_digest_of_its_bytes(
    path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    path.write_bytes(pack(path.read_bytes()))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    small = read_coco(path)
    monkeypatch.setattr(reader, "SMALLEST_SHARED", 1)
    large = read_coco(path)
    assert isinstance(large[1].digest, FileDigest)
    assert small[1].sha256 == large[1].sha256 == expected
    assert (small[1], small[0].content) == (large[1], large[0].content)


def test_threads_share_a_digest(path: Path) -> None:
    digest = hashing(path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: digest(), range(8)))
    assert set(found) == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_file_that_changes_after_it_was_read_is_refused(path: Path) -> None:
    digest = hashing(path)
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(UserError, match=r"toy\.json was changed while it was read"):
        digest()


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_that_is_replaced_or_deleted_has_the_digest_of_what_was_read(path: Path, replace: bool) -> None:
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashing(path)
    if replace:
        other = path.with_name("other")
        other.write_text("other")
        other.replace(path)
    else:
        path.unlink()
    assert digest() == expected


@needs_proc
def test_a_killed_process_is_one_sentence(path: Path) -> None:
    os.truncate(path, 2**31)  # no bytes on the disk, yet a while to hash
    before = children()
    digest = hashing(path)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"toy\.json was not hashed: the process that did it ended with status -9"):
        digest()
    assert children() == before


@needs_proc
def test_a_digest_that_nobody_asks_for_leaves_no_process(path: Path) -> None:
    os.truncate(path, 2**31)
    before = children()
    digest = hashing(path)
    assert children() != before
    del digest
    gc.collect()
    assert children() == before
