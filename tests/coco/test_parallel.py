"""Reading in several processes: the columns of one, whatever the file looks like, and no process left behind."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cissod_bench.coco import parallel as workers
from cissod_bench.coco import reader
from cissod_bench.coco.decode import Decoder
from cissod_bench.coco.parallel import Workers, decode_part
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from tests.coco.test_cache import same
from tests.coco.test_reader import BOX, JSON, SMALL, as_lists, naive
from tests.toy import toy_data

TRAPS = (
    "}, {",
    '"}, {"',
    '\\"}, {\\"id": 1, \\"image_id\\": 3, \\"category_id\\": 1, \\"bbox\\": [1, 2, 3, 4]}, {',
    "]}, {[",
    "\\",
    "é \U0001f600 \u2028 \0",
)
"""Texts that look like the end of an element, of a string or of the list."""


class InProcess:
    """`Workers` without processes: the same parts, decoded at once, so that thousands of files take seconds."""

    def __init__(self, file: int, path: Path, file_names: Any, processes: int, part: int) -> None:
        self.file, self.part, self.size = file, part, os.fstat(file).st_size
        self.decoder = Decoder(path, file_names)
        self.parts = 0

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self) -> bool:
        return True

    def decoded(self, key: str, start: int) -> Iterator[tuple[Any, int]]:
        decode = {"images": self.decoder.images, "annotations": self.decoder.boxes}[key]
        expected = start
        for first in range(start, self.size, self.part):
            found = decode_part(self.file, decode, first, first + self.part, exact=first == start, buffer=bytearray())
            if found is None or found.start != expected:
                return
            expected = found.end
            yield found.elements, expected


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "Workers", InProcess)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the workers: they would start too late for a small file."""
    monkeypatch.setattr(Workers, "ready", lambda self: self._failures < 3)


def awkward(number: int) -> dict[str, Any]:
    """A file whose every annotation holds traps, those of `number` among them."""
    trap = TRAPS[number % len(TRAPS)]
    boxes = [
        {
            "note": trap,
            "segmentation": [[1, 2.5, 3], {"parts": [{"a": trap}, {"b": {"}, {": [{}, {}]}}]}]
            if entry % 2
            else {"counts": trap, "size": [20, 30]},
            "id": entry,
            "image_id": (3, 5)[entry % 2],
            "category_id": 1 + entry % 2,
            "bbox": [entry, 0.1 * entry, 3, 4e-1],
            "iscrowd": int(entry % 3 == 0),
            trap: [trap, {trap: trap}],
        }
        for entry in range(40)
    ]
    return {**SMALL, "annotations": boxes}


@pytest.mark.parametrize("number", range(len(TRAPS)))
@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"separators": (" \r\n\t, ", " : ")}, {"ensure_ascii": False}])
@pytest.mark.usefixtures("in_process")
def test_traps_in_any_layout(tmp_path: Path, number: int, order: tuple[str, str], style: dict[str, Any]) -> None:
    content = awkward(number)
    rest = [key for key in content if key not in order]
    text = json.dumps({key: content[key] for key in (*order, *rest)}, **style)
    path = tmp_path / "traps.json"
    path.write_bytes(text.encode("utf-8", "replace"))
    expected = naive(json.loads(path.read_bytes()))
    for piece in (1, 150, 333, 1000, 5000):
        assert as_lists(read_coco(path, processes=2, piece=piece)[0]) == expected


@settings(max_examples=60)
@given(
    boxes=st.lists(BOX, max_size=8), extra=JSON, piece=st.integers(1, 600), indent=st.sampled_from([None, 1]),
    note=st.sampled_from(TRAPS),
)  # fmt: skip
@example(boxes=[], extra=None, piece=1, indent=None, note="")
def test_any_file_and_part(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[Any], extra: Any, piece: int, indent: Any, note: str
) -> None:
    content = {**SMALL, "annotations": [{**box, "extra": [extra, note]} for box in boxes], "extra": extra}
    path = tmp_path_factory.getbasetemp() / "parts.json"
    path.write_text(json.dumps(content, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "Workers", InProcess)
        assert same(read_coco(path, processes=2, piece=piece)[0], read_coco(path, processes=1)[0])


@pytest.mark.usefixtures("in_process")
def test_every_place_of_a_damaged_file_gives_the_message_of_one_process(tmp_path: Path) -> None:
    text = json.dumps(awkward(0)).encode()
    path = tmp_path / "damaged.json"
    for place in range(0, len(text), 173):
        for damaged in (text[:place], text[:place] + b"}" + text[place + 1 :], text[:place] + b'"' + text[place:]):
            path.write_bytes(damaged)
            found = []
            for processes in (1, 2):
                try:
                    found.append(read_coco(path, processes=processes, piece=700)[0].digest)
                except UserError as error:
                    found.append(str(error))
            assert found[0] == found[1]


@pytest.mark.usefixtures("in_process")
def test_the_place_of_a_wrong_item_counts_from_the_start_of_the_list(tmp_path: Path) -> None:
    content = toy_data(images=600)
    content["annotations"][777]["category_id"] = "x"
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"annotations\[777\]\.category_id: Expected float, got str"):
        read_coco(tmp_path / "wrong.json", processes=2, piece=2000)


def test_a_wrong_cut_is_never_taken(tmp_path: Path) -> None:
    """Every offset of a file as start and end of a part: what is decoded from an element on ends at an element."""
    content = awkward(0)["annotations"][:4]
    text = json.dumps(content).encode()
    path = tmp_path / "list.json"
    path.write_bytes(text)
    gaps = [1]
    for box in content[:-1]:
        gaps.append(gaps[-1] + len(json.dumps(box)) + 2)
    decode = Decoder(path, "file_name").boxes
    with path.open("rb") as file:
        for start in gaps:
            for end in range(start, len(text)):
                found = decode_part(file.fileno(), decode, start, end, exact=True, buffer=bytearray())
                assert found is None or (found.end in gaps and found.start == start)


@pytest.mark.usefixtures("at_once")
def test_processes_give_the_columns_of_one(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=3_000)))
    columns, source = read_coco(path, processes=1)
    seen: list[int] = []
    for processes in (2, 3):
        again, same_source = read_coco(path, processes=processes, piece=20_000, progress=seen.append)
        assert same(columns, again)
        assert (source, source.sha256) == (same_source, same_source.sha256)
    assert len(seen) > 10
    assert max(seen) <= source.size


def children() -> set[int]:
    """Processes that this one has started and that are not gone."""
    found: set[int] = set()
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists a process's children")


@needs_proc
@pytest.mark.usefixtures("at_once")
def test_a_killed_worker_is_one_sentence_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=3_000)))
    before = children()

    def kill(_: int) -> None:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(UserError, match=r"was not read: a worker process was killed by signal 9"):
        read_coco(path, processes=2, piece=5_000, progress=kill)
    assert children() == before
    assert read_coco(path, processes=2, piece=5_000)[0].num_images == 3_000
    assert children() == before


@needs_proc
@pytest.mark.usefixtures("at_once")
def test_an_error_ends_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=3_000))[:-300])
    before = children()
    with pytest.raises(UserError, match="cut off"):
        read_coco(path, processes=2, piece=5_000)
    assert children() == before


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_ends(pid: str) -> None:
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running(pid)


@needs_proc
def test_workers_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=3_000)))
    program = (
        "import sys; from pathlib import Path; from cissod_bench.coco.parallel import Workers\n"
        "file = open(sys.argv[1], 'rb')\n"
        "helpers = Workers(file.fileno(), Path(sys.argv[1]), 'file_name', 2, 5_000)\n"
        "next(helpers.decoded('images', int(sys.argv[2])))\n"
        "print(*[process.pid for process in helpers._processes.values()], flush=True)\n"
        "input()"
    )
    start = path.read_bytes().index(b'"images": [') + len(b'"images": [')
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(start)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        helpers = process.stdout.readline().split()
        assert len(helpers) == 2
        assert all(running(pid) for pid in helpers)
        process.kill()
    for helper in helpers:
        assert_ends(helper)


@pytest.mark.usefixtures("at_once")
def test_guesses_that_are_always_wrong_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [{**box, "segments_info": [{"id": number} for number in range(40)]} for box in awkward(1)["annotations"]]
    path = tmp_path / "nested.json"
    path.write_text(json.dumps({**SMALL, "annotations": boxes * 20}))
    asked = 0
    decoded = Workers.decoded

    def counting(self: Workers, key: str, start: int) -> Iterator[Any]:
        nonlocal asked
        asked += 1
        return decoded(self, key, start)

    monkeypatch.setattr(workers.Workers, "decoded", counting)
    assert read_coco(path, processes=2, piece=3_000)[0].num_boxes == 800
    assert asked < 60
    np.testing.assert_equal(as_lists(read_coco(path, processes=1)[0])["box_ids"][:40], list(range(40)))


@pytest.mark.usefixtures("at_once")
def test_slots_are_given_back_however_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many runs that end with a wrong guess, with parts still under way: lost slots would stop the reading for good."""
    content = toy_data(images=2_000)
    for box in content["annotations"][50::50]:
        box["parts"] = [{"id": number} for number in range(60)]
    path = tmp_path / "nested.json"
    path.write_text(json.dumps(content))
    runs = 0
    decoded = Workers.decoded

    def checked(self: Workers, key: str, start: int) -> Iterator[Any]:
        nonlocal runs
        runs += 1
        yield from decoded(self, key, start)
        assert len(self._free) + sum(self._busy.values()) >= 8  # free, or with a worker

    monkeypatch.setattr(workers.Workers, "decoded", checked)
    expected = read_coco(path, processes=1)[0]
    assert same(read_coco(path, processes=2, piece=1_500)[0], expected)
    assert runs > 8


@needs_proc
@pytest.mark.parametrize("lacking", ["memory", "processes"])
def test_where_there_is_no_room_for_workers_this_process_reads_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy_data(images=300)))
    start, started = subprocess.Popen, 0

    def one_only(*arguments: Any, **options: Any) -> Any:
        nonlocal started
        started += 1
        if started > 1:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*arguments, **options)

    def none(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    if lacking == "memory":
        monkeypatch.setattr(os, "truncate", none)
    else:
        monkeypatch.setattr(subprocess, "Popen", one_only)
    descriptors, before = len(list(Path("/dev/fd").iterdir())), children()
    assert same(read_coco(path, processes=2)[0], read_coco(path, processes=1)[0])
    assert started == (0 if lacking == "memory" else 2)
    assert (len(list(Path("/dev/fd").iterdir())), children()) == (descriptors, before)
