"""Downloads over connections and onto disks that fail."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cissod_bench.downloads.fetch import fetch_source
from cissod_bench.downloads.transfer import part_file
from cissod_bench.errors import UserError
from tests.downloads.server import Behaviour, serving, sha256, silent, weights

CONTENT = random.Random(1).randbytes(600_000)
PART = Path("weights", ".net.pth.part")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_continues(ranges: bool, tmp_path: Path) -> None:
    behaviour = Behaviour({"net.pth": CONTENT}, ranges=ranges, cut_after=250_000)
    with serving(behaviour) as address:
        with pytest.raises(UserError, match=r"after 250,000 of 600,000 bytes .*continues where it stopped"):
            fetch_source(weights(address, CONTENT), tmp_path, silent)
        assert not (tmp_path / "weights" / "net.pth").exists()
        behaviour.cut_after = None
        (found,) = fetch_source(weights(address, CONTENT), tmp_path, silent)
    assert found.state == "ok"
    assert found.path.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=250000-"]
    assert behaviour.sent == (600_000 if ranges else 850_000)
    assert [path.name for path in found.path.parent.iterdir()] == ["net.pth"]


def test_a_download_of_unpublished_size_continues_and_ends(tmp_path: Path) -> None:
    """The server's 416 says that everything is there."""
    behaviour = Behaviour({"net.pth": CONTENT})
    part = tmp_path / PART
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    with serving(behaviour) as address:
        fetch_source(weights(address, CONTENT, size=None), tmp_path, silent)
    assert behaviour.asked == ["bytes=600000-"]
    assert behaviour.sent == 0
    assert (tmp_path / "weights/net.pth").read_bytes() == CONTENT


def test_a_part_file_longer_than_the_file_begins_anew(tmp_path: Path) -> None:
    for size in (None, len(CONTENT)):
        root = tmp_path / str(size)
        part = root / PART
        part.parent.mkdir(parents=True)
        part.write_bytes(CONTENT + b"more")
        with serving(Behaviour({"net.pth": CONTENT})) as address:
            fetch_source(weights(address, CONTENT, size=size), root, silent)
        assert (root / "weights/net.pth").read_bytes() == CONTENT


def test_a_wrong_file_is_removed_and_named(tmp_path: Path) -> None:
    other = bytes(len(CONTENT))
    with serving(Behaviour({"net.pth": other})) as address:
        with pytest.raises(UserError, match=r"has the checksum sha256 \w{64} instead of \w{64}\. It was removed"):
            fetch_source(weights(address, CONTENT), tmp_path, silent)
        assert not (tmp_path / PART).exists()
        with pytest.raises(UserError, match="600,000 bytes, the published one 599,999"):
            fetch_source(weights(address, CONTENT[:-1]), tmp_path, silent)
    assert not (tmp_path / "weights" / "net.pth").exists()


def test_a_checksum_of_eight_digits_is_compared(tmp_path: Path) -> None:
    digits = sha256(CONTENT)[: len("sha256:") + 8]
    with serving(Behaviour({"net.pth": CONTENT})) as address:
        wrong = digits[:-1] + ("0" if digits[-1] != "0" else "1")
        with pytest.raises(UserError, match="instead of"):
            fetch_source(weights(address, CONTENT, checksum=wrong), tmp_path, silent)
        fetch_source(weights(address, CONTENT, checksum=digits), tmp_path, silent)


def test_a_server_without_the_file_or_without_life(tmp_path: Path) -> None:
    with serving(Behaviour({})) as address, pytest.raises(UserError, match="answers 404 Not Found"):
        fetch_source(weights(address, CONTENT), tmp_path, silent)
    with pytest.raises(UserError, match=r"connection failed after 0 of 600,000 bytes .*refused"):
        fetch_source(weights(address, CONTENT), tmp_path, silent)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        part_file(tmp_path / "weights", "net.pth"),
        serving(Behaviour({"net.pth": CONTENT})) as address,
        pytest.raises(UserError, match="another process is downloading"),
    ):
        fetch_source(weights(address, CONTENT), tmp_path, silent)


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe"])
def test_only_a_part_file_of_ours_is_written(kind: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    part = tmp_path / PART
    part.parent.mkdir()
    if kind == "link":
        part.symlink_to(precious)
    elif kind == "hard link":
        part.hardlink_to(precious)
    elif kind == "folder":
        part.mkdir()
    else:
        os.mkfifo(part)
    with (
        serving(Behaviour({"net.pth": CONTENT})) as address,
        pytest.raises(UserError, match="remove what has its name"),
    ):
        fetch_source(weights(address, CONTENT), tmp_path, silent)
    assert precious.read_bytes() == b"precious"


def test_a_file_of_the_users_stays(tmp_path: Path) -> None:
    place = tmp_path / "weights" / "net.pth"
    place.parent.mkdir()
    place.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"net\.pth: 4 bytes instead of 600,000\. Remove it or move it away"):
        fetch_source(weights("http://127.0.0.1:9", CONTENT), tmp_path, silent)
    assert place.read_bytes() == b"mine"


def test_a_disk_without_room_is_named_before_the_download(tmp_path: Path) -> None:
    huge = 2**60
    with pytest.raises(UserError, match=r"net\.pth needs 1073741824\.0 GiB"):
        fetch_source(weights("http://127.0.0.1:9", CONTENT, size=huge), tmp_path, silent)


FETCH = """
import sys
from pathlib import Path
from cissod_bench.downloads.fetch import fetch_source
from cissod_bench.errors import UserError
from tests.downloads.server import silent, weights
content = Path(sys.argv[2]).read_bytes()
try:
    fetch_source(weights(sys.argv[1], content), Path(sys.argv[3]), silent)
except UserError as error:
    sys.exit(f"{error}")
"""


def fetching(address: str, tmp_path: Path, limit: int | None = None) -> "subprocess.Popen[str]":
    """A process that fetches; the largest file that it may write stands for a disk that gets full."""
    (tmp_path / "content").write_bytes(CONTENT)
    arguments = [sys.executable, "-c", FETCH, address, str(tmp_path / "content"), str(tmp_path / "root")]

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, preexec_fn=limited)


def test_a_disk_that_gets_full_keeps_what_has_come(tmp_path: Path) -> None:
    behaviour = Behaviour({"net.pth": CONTENT})
    with serving(behaviour) as address:
        process = fetching(address, tmp_path, limit=300_000)
        _, message = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Free some disk space" in message
        assert "Traceback" not in message
        assert (tmp_path / "root" / PART).stat().st_size == 300_000
        assert fetching(address, tmp_path).wait(60) == 0
    assert behaviour.asked[-1] == "bytes=300000-"
    assert (tmp_path / "root" / "weights" / "net.pth").read_bytes() == CONTENT


def test_a_download_killed_five_times_ends_with_the_right_file(tmp_path: Path) -> None:
    """SIGKILL whenever a random number of bytes has come; each start asks for the rest alone."""
    behaviour = Behaviour({"net.pth": CONTENT}, slow=0.02, block=6_000)
    stops = sorted(random.Random(7).sample(range(1, len(CONTENT) - 50_000), 5))
    part = tmp_path / "root" / PART
    with serving(behaviour) as address:
        for stop in stops:
            process = fetching(address, tmp_path)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(FileNotFoundError):
                    if part.stat().st_size >= stop:
                        break
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert stop <= part.stat().st_size < len(CONTENT)
            assert CONTENT.startswith(part.read_bytes())
        process = fetching(address, tmp_path)
        assert process.wait(60) == 0
    assert (tmp_path / "root" / "weights" / "net.pth").read_bytes() == CONTENT
    assert not part.exists()
    starts = [int(wanted[6:-1]) for wanted in behaviour.asked if wanted]
    assert len(starts) == 5
    assert starts == sorted(starts)
