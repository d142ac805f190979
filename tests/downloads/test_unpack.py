"""Archives, good and evil."""

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.downloads import unpack as unpacking
from cissod_bench.downloads.catalog import Download, Item
from cissod_bench.downloads.check import check_source
from cissod_bench.downloads.fetch import fetch_source
from cissod_bench.downloads.unpack import unpack
from cissod_bench.errors import UserError
from tests.downloads.server import Behaviour, serving, sha256, silent, source, zipped

IMAGES = {f"val/{number}.jpg": bytes([number]) * (100 + number) for number in range(20)}
GOOD = {"val/": b"", **IMAGES, "other.json": b"{}", "boxes.json": b'{"images": []}'}
FOLDER = Item("set/val", folder=True, images=20, member="val/")
FILE = Item("set/annotations/boxes.json", size=14, member="boxes.json")


def download(content: bytes, address: str = "http://127.0.0.1:9", **fields: Any) -> Download:
    fields = {"items": (FOLDER, FILE), "unpacked": 10_000} | fields
    return Download(f"{address}/set.zip", sha256(content), size=len(content), **fields)


def test_a_fetched_archive_is_unpacked_checked_and_removed(tmp_path: Path) -> None:
    content = zipped(GOOD)
    with serving(Behaviour({"set.zip": content})) as address:
        thing = source(download(content, address))
        found = fetch_source(thing, tmp_path, silent)
    assert [entry.state for entry in found] == ["ok", "ok"]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        *(f"set/{name}" for name in IMAGES),
        "set/val.contents.json",
        "set/annotations/boxes.json",
        "set/annotations/boxes.json.contents.json",
    }
    assert all((tmp_path / "set" / name).read_bytes() == image for name, image in IMAGES.items())
    assert json.loads((tmp_path / "set/val.contents.json").read_text())["3.jpg"] == [103, zlib.crc32(bytes([3]) * 103)]
    assert fetch_source(thing, tmp_path, silent) == found, "nothing is fetched again: the server is gone"


def test_check_finds_what_has_changed(tmp_path: Path) -> None:
    content = zipped(GOOD)
    with serving(Behaviour({"set.zip": content})) as address:
        thing = source(download(content, address))
        fetch_source(thing, tmp_path, silent)

    def states(full: bool) -> list[tuple[str, str]]:
        return [(entry.state, entry.detail) for entry in check_source(thing, tmp_path, full=full)]

    assert states(full=True) == [("ok", "20 files, CRC-32 agree"), ("ok", "CRC-32 agrees")]
    image, boxes = tmp_path / "set/val/7.jpg", tmp_path / "set/annotations/boxes.json"
    image.write_bytes(b"\0" * 107)
    boxes.write_bytes(b'{"images": {}}')
    assert [state for state, _ in states(full=False)] == ["ok", "ok"]
    assert states(full=True) == [
        ("wrong", "7.jpg has another CRC-32 than in the archive"),
        ("wrong", "its CRC-32 is not that of the archive's file"),
    ]
    image.write_bytes(b"")
    boxes.unlink()
    assert states(full=False) == [("wrong", "7.jpg has 0 bytes instead of 107"), ("missing", "")]
    image.unlink()
    assert states(full=False)[0] == ("wrong", "7.jpg is missing")
    (tmp_path / "set/val.contents.json").unlink()
    assert states(full=False)[0] == ("wrong", "19 files instead of 20")


@pytest.mark.parametrize(
    ("entries", "links", "message"),
    [
        ({**GOOD, "../evil": b"x"}, (), "leads outside its folder"),
        ({**GOOD, "val/../../evil": b"x"}, (), "leads outside its folder"),
        ({**GOOD, "/tmp/evil": b"x"}, (), "leads outside its folder"),
        ({**GOOD, "val\\..\\evil": b"x"}, (), "leads outside its folder"),
        ({**GOOD, "val/0.jpg": b"/etc/passwd"}, ("val/0.jpg",), "has a link or a device"),
        ({**GOOD, "val/./0.jpg": b"x"}, (), "twice"),
        ({**GOOD, "val/21.jpg": b"x"}, (), "has 21 files in val/, not 20"),
        ({name: content for name, content in GOOD.items() if name != "boxes.json"}, (), r"has no boxes\.json"),
        ({**GOOD, "boxes.json": b"{}"}, (), r"has a boxes\.json of 2 bytes, not 14"),
        ({**GOOD, "val/0.jpg": bytes(10**7)}, (), "unpacks to .* bytes, more than 10,000"),
    ],
)  # fmt: skip
def test_a_malicious_archive_leaves_nothing(
    entries: dict[str, bytes], links: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    archive = tmp_path / "deep" / "set.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(entries, links=links))
    with pytest.raises(UserError, match=message):
        unpack(archive, download(b""), tmp_path / "deep" / "root")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    content = bytearray(zipped(GOOD))
    content[content.index(b"val/3.jpg") + 9] ^= 0xFF  # the first byte of its data
    archive = tmp_path / "set.zip"
    for damaged in (bytes(content), bytes(content[:-30]), b""):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(archive, download(b""), tmp_path / "root")
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["set.zip"]


def test_a_disk_full_of_images_needs_no_second_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk gets full while the archive is unpacked."""
    content = zipped(GOOD)
    behaviour = Behaviour({"set.zip": content})
    write = unpacking.shutil.copyfileobj
    written: list[Any] = []

    def until_full(*arguments: Any) -> None:
        if len(written) == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(arguments)
        write(*arguments)

    with serving(behaviour) as address:
        thing = source(download(content, address))
        monkeypatch.setattr(unpacking.shutil, "copyfileobj", until_full)
        with pytest.raises(UserError, match="No space left on device"):
            fetch_source(thing, tmp_path, silent)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".set.zip.part"]
        monkeypatch.setattr(unpacking.shutil, "copyfileobj", write)
        assert [entry.state for entry in fetch_source(thing, tmp_path, silent)] == ["ok", "ok"]
    assert len(behaviour.asked) == 1


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    content = zipped(GOOD)
    boxes = tmp_path / FILE.path
    boxes.parent.mkdir(parents=True)
    boxes.write_bytes(b'{"images": 12}')
    with serving(Behaviour({"set.zip": content})) as address:
        fetch_source(source(download(content, address)), tmp_path, silent)
    assert boxes.read_bytes() == b'{"images": 12}'
    assert len(list((tmp_path / "set/val").iterdir())) == 20
