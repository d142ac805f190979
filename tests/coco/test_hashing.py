"""The digest that another process computes: hashlib's, of the bytes that were read, and no process left behind."""

import errno
import gc
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cissod_bench.coco import hashing as hashing_module
from cissod_bench.coco import reader
from cissod_bench.coco.hashing import FileDigest
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from tests.coco.test_parallel import assert_ends, children, needs_proc, running
from tests.toy import toy_data


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
    assert (small[1], small[0].digest) == (large[1], large[0].digest)


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


def test_a_digest_that_is_known_stays(path: Path) -> None:
    digest = hashing(path)
    expected = digest()
    os.utime(path, (1, 1))  # after everything was read: the next split of the same call is none the worse
    assert digest() == expected == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_that_is_replaced_or_deleted_has_the_digest_of_what_was_read(path: Path, replace: bool) -> None:
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashing(path)
    path.unlink()
    if replace:
        path.write_text("other")
    assert digest() == expected


@needs_proc
def test_a_killed_process_makes_no_difference(path: Path) -> None:
    os.truncate(path, 2**29)  # no bytes on the disk, yet a while to hash
    before = children()
    digest = hashing(path)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    with path.open("rb") as file:
        assert digest() == hashlib.file_digest(file, "sha256").hexdigest()
    assert children() == before


def test_where_no_process_can_start_this_one_hashes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none)
    assert hashing(path)() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_cannot_be_read_again_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", broken)
    monkeypatch.setattr(hashing_module, "_started", lambda _: None)
    digest = hashing(path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"toy\.json cannot be read: Input/output error\.$"):
            digest()


@needs_proc
def test_a_digest_that_nobody_asks_for_leaves_no_process(path: Path) -> None:
    os.truncate(path, 2**31)
    before = children()
    digest = hashing(path)
    assert children() != before
    process = str((children() - before).pop())
    del digest
    gc.collect()
    assert_ends(process)


@needs_proc
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_hashing_ends_with_a_caller_that_is_killed(path: Path, end: signal.Signals) -> None:
    os.truncate(path, 2**34)
    program = (
        "import io, os, sys; from pathlib import Path; from cissod_bench.coco import hashing\n"
        "started, file = hashing._started, io.FileIO(sys.argv[1])\n"
        "def told(file):\n"
        "    process = started(file)\n"
        "    print(process.pid, flush=True)\n"
        "    return process\n"
        "hashing._started = told\n"
        "digest = hashing.FileDigest(Path(sys.argv[1]), file, os.fstat(file.fileno()))\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        process = caller.stdout.readline().strip()
        assert running(process)
        caller.send_signal(end)
    assert_ends(process)
