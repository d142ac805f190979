"""Files written whole or not at all, by one process or by several at once, on a full disk and after a kill."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cissod_bench import io
from cissod_bench.errors import UserError
from cissod_bench.io import atomic_path, decode_json, staged_folder, write_bytes
from tests.privileges import without_privileges

WRITE = "import sys; from pathlib import Path; from cissod_bench.io import write_bytes; "


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.json", b"old")

    def fail() -> None:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_bytes(b"half")
            assert temporary.suffix == ".json"
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    killed = (
        "import os, signal; from cissod_bench.io import atomic_path; from pathlib import Path\n"
        f"with atomic_path(Path({str(tmp_path / 'a')!r})) as t:\n"
        "    t.write_bytes(b'long half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.partial"]
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_several_writers_at_once(tmp_path: Path) -> None:
    """Each writes many times; the file is always one of theirs, whole."""
    program = WRITE + "[write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 100_000) for _ in range(30)]"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a"), letter]) for letter in ("x", "y", "z")
    ]
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "a").exists():
            content = (tmp_path / "a").read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["a"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    program = WRITE + "write_bytes(Path(sys.argv[1]), bytes(9_000))"
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)),
        capture_output=True,
        text=True,
    )
    assert f"File too large: '{tmp_path / 'a'}'" in result.stderr
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_staged_folder_takes_the_place_of_an_empty_one_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with staged_folder(tmp_path / "a") as staging:
        (staging / "b.txt").write_text("new")
        assert names(tmp_path / "a") == []
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "b.txt").read_text() == "new"

    def again(**options: Any) -> None:
        with staged_folder(tmp_path / "a", **options) as staging:
            (staging / "b.txt").write_text("other")

    with pytest.raises(UserError, match="is not empty"):
        again()
    again(replaces=lambda staging: (staging / "b.txt").read_text() != "other")
    assert (tmp_path / "a" / "b.txt").read_text() == "new"
    again(replaces=lambda staging: (staging / "b.txt").read_text() == "other")
    assert (tmp_path / "a" / "b.txt").read_text() == "other"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_is_replaced_in_one_step_where_the_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    if at_once and not io._exchange(tmp_path / "x", tmp_path / "y"):
        pytest.skip("this file system cannot exchange two folders")
    for name in ("x", "y"):
        (tmp_path / name).rmdir()
    if not at_once:
        monkeypatch.setattr(io, "_exchange", lambda one, other: False)
    renamed = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, new: renamed.append((path.name, new.name)) or rename(path, new))
    for text in ("old", "new"):
        with staged_folder(tmp_path / "a", replaces=lambda _: True) as staging:
            (staging / "b.txt").write_text(text)
    assert (tmp_path / "a" / "b.txt").read_text() == "new"
    assert names(tmp_path) == ["a"]
    assert (("a", "old") in renamed) == (not at_once)


def test_an_error_while_a_folder_is_staged_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("old")

    def fail() -> None:
        with staged_folder(tmp_path / "a", replaces=lambda _: True) as staging:
            (staging / "b.txt").write_text("half")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert (tmp_path / "a" / "b.txt").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_removed_and_what_it_moved_away_is_put_back(tmp_path: Path) -> None:
    rooms = [tmp_path / f".a.{name}.partial" for name in ("empty", "half", "moved")]
    for room in rooms:
        room.mkdir()
    for room in rooms[1:]:
        (room / io.MARKER).touch()
        (room / "new").mkdir()
        (room / "new" / "b.txt").write_text("half")
    (rooms[2] / "old").mkdir()
    (rooms[2] / "old" / "b.txt").write_text("old")
    with pytest.raises(UserError, match="is not empty"), staged_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a" / "b.txt").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", [".a.partial", ".a.previous", ".a.stolen.partial", ".a.lock", ".a.old.partial"])
@pytest.mark.parametrize("kind", ["folder", "link to a folder", "link to a file", "hard link", "marker", "pipe"])
def test_nothing_of_somebody_else_is_emptied_whatever_its_name(tmp_path: Path, name: str, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "b.txt").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    planted = out / name
    if kind == "folder":
        shutil.copytree(victim, planted)
    elif kind == "marker":  # the marker is itself a link
        shutil.copytree(victim, planted)
        (planted / io.MARKER).symlink_to(victim / "b.txt")
    elif kind == "pipe":
        os.mkfifo(planted)
    elif kind == "hard link":
        planted.hardlink_to(victim / "b.txt")
    else:
        planted.symlink_to(victim if kind == "link to a folder" else victim / "b.txt")
    try:
        with staged_folder(out / "a") as staging:
            (staging / "c.txt").write_text("new")
    except UserError:
        assert name == ".a.lock"
        assert kind in ("folder", "marker")
    else:
        assert (out / "a" / "c.txt").read_text() == "new"
    if kind in ("folder", "marker"):
        assert (planted / "b.txt").read_text() == "precious"
    assert (victim / "b.txt").read_text() == "precious"


def test_a_leftover_of_ours_is_removed_without_following_links_in_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "b.txt").write_text("precious")
    room = tmp_path / ".a.x.partial"
    room.mkdir()
    (room / io.MARKER).touch()
    (room / "new").symlink_to(victim)
    (room / "old").symlink_to(victim)
    with staged_folder(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a", "victim"]
    assert not (tmp_path / "a").is_symlink()
    assert (victim / "b.txt").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "broken link"])
def test_a_file_is_written_without_touching_what_has_the_temporary_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "victim").write_text("precious")
    planted = tmp_path / ".a.partial.json"
    if kind == "pipe":
        os.mkfifo(planted)
    elif kind == "hard link":
        planted.hardlink_to(tmp_path / "victim")
    else:
        planted.symlink_to(tmp_path / ("victim" if kind == "link" else "nowhere"))
    write_bytes(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"new"
    assert not (tmp_path / "a.json").is_symlink()
    assert names(tmp_path) == ["a.json", "victim"]
    assert (tmp_path / "victim").read_text() == "precious"


def test_pipes_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "pipe", "Not a regular"),
        (Path("/dev/zero"), "Not a regular"),
        (tmp_path, "Is a"),
    ):
        with pytest.raises(OSError, match=reason):
            io.read_regular(path)
        with pytest.raises(OSError, match=reason):
            io.sha256_file(path)
    (tmp_path / "a").write_bytes(b"123")
    assert io.read_regular(tmp_path / "a", 3) == b"123"
    with pytest.raises(OSError, match="Larger than 2 bytes"):
        io.read_regular(tmp_path / "a", 2)


def test_whether_a_file_is_in_use_needs_no_permission_to_write(tmp_path: Path) -> None:
    lock, asked = tmp_path / "lock", "from cissod_bench.io import in_use; print(in_use(Path(sys.argv[1])))"
    program = f"import sys; from pathlib import Path; {asked}"
    lock.touch()
    lock.chmod(0o444)
    run = partial(subprocess.run, [sys.executable, "-c", program, str(lock)], capture_output=True, text=True)
    assert run(preexec_fn=without_privileges).stdout == "False\n"
    lock.chmod(0o666)
    with io.lock(lock):
        lock.chmod(0o444)
        assert run(preexec_fn=without_privileges).stdout == "True\n"


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": "\xff"}', b"[" * 100_000, b'{"a": NaN}', b'{"a": 1}x', b"[1]", b"\0", b"null"]
)
def test_json_of_anybody_is_read_or_refused_with_its_name(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^a\.json cannot be read: .*\. Get it again\.$"):
        decode_json(content, dict[str, Any], name="a.json", remedy="Get it again.")


def test_json_with_a_byte_order_mark_is_read() -> None:
    assert decode_json(b'\xef\xbb\xbf{"a": 1}', dict[str, int], name="a.json") == {"a": 1}
