"""Which damage to a checkpoint is found: every wrong bit that would matter."""

import os
import zipfile
from pathlib import Path

import pytest
import torch

from cissod_bench.ssod.hooks.checkpoints import is_whole, newest_readable

CONTENT = {"meta": {"iter": 3, "cfg": "a = 1"}, "weight": torch.arange(5.0)}
DIRECTORY = b"PK\x01\x02"
"""What each entry of a zip archive's directory begins with."""


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """The newest of two checkpoints."""
    for iteration in (2, 3):
        torch.save(CONTENT, tmp_path / f"iter_{iteration}.pth")
    return tmp_path / "iter_3.pth"


def flip(file: Path, content: bytes, place: int, bit: int) -> None:
    file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])


def entry_of(name: bytes, content: bytes) -> int:
    """Where the entry of a file begins in an archive's directory."""
    return content.rindex(DIRECTORY, 0, content.rindex(name))


def test_a_wrong_bit_is_found_or_means_nothing(newest: Path) -> None:
    """All bits of the weight's entry in the directory, which no checksum is over, and every seventh of the file."""
    content = newest.read_bytes()
    entry = entry_of(b"/data/0", content)
    found = 0
    for number in (*range(8 * entry, 8 * (entry + 60)), *range(0, 8 * len(content), 7)):
        flip(newest, content, number // 8, number % 8)
        if is_whole(newest):
            loaded = torch.load(newest, weights_only=False)
            assert loaded["meta"] == CONTENT["meta"], number
            assert torch.equal(loaded["weight"], CONTENT["weight"]), number
        else:
            found += 1
    assert found > 500


@pytest.mark.parametrize(
    ("offset", "bit"), [(8, 0), (9, 5), (10, 3), (38, 4)], ids=["encrypted", "patched", "deflated", "a folder"]
)
def test_a_wrong_bit_in_the_directory_leaves_the_checkpoint_before(newest: Path, offset: int, bit: int) -> None:
    content = newest.read_bytes()
    flip(newest, content, entry_of(b"/data/0", content) + offset, bit)
    assert newest_readable(newest.parent) == (newest.with_name("iter_2.pth"), [newest])


def test_what_is_whole_but_no_checkpoint_is_passed_over(newest: Path) -> None:
    """An archive whose checksums are right, which PyTorch cannot open."""
    with zipfile.ZipFile(newest, "w") as archive:
        archive.writestr("photo.txt", "mine")
    assert newest_readable(newest.parent) == (newest.with_name("iter_2.pth"), [newest])


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_passed_over(newest: Path, kind: str) -> None:
    newest.unlink()
    if kind == "pipe":
        os.mkfifo(newest)
    elif kind == "device":
        newest.symlink_to("/dev/zero")
    else:
        newest.mkdir()
    assert newest_readable(newest.parent) == (newest.with_name("iter_2.pth"), [newest])
