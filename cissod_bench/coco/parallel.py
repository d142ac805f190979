"""Decoding the parts of a large annotation file in other processes, in the order of the file.

The file is divided at round offsets. A worker looks for the first gap between two elements after either end of its
part and decodes what lies between. The place of a gap has to be guessed, since `}, {` may also occur in a string or in
a nested list. The guess is proved as in `stream.py`: text that starts at an element and decodes as a list ends between
two elements of the same list. So the first part, whose start is known, proves the start of the second, and so on. A
part that cannot be decoded, or that does not start where the previous one ended, ends the run: it is dropped together
with all later ones, and the caller continues from there by itself. A wrong guess costs time and never changes an
element.

A worker lays what it has decoded into memory shared with its caller (`shared_arrays.py`), in the slot that the caller
named.

Workers are separate programs, not forks, so that threads of the caller do no harm. They end when the connection to
their caller closes, however the caller ends.
"""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import msgspec

from cissod_bench.coco.decode import Boxes, Decoder, FileNames, Images
from cissod_bench.coco.shared_arrays import Slots, shared_memory
from cissod_bench.coco.stream import BETWEEN_ELEMENTS
from cissod_bench.errors import UserError

_BEYOND = 2**18  # bytes after a part within which its last gap must lie
_WAITING = 2  # parts that a worker is given at a time, so that it never waits for the next one
_MOST_FAILURES = 3
_ARRAYS_OF_TEXT = 3  # bytes of arrays that a byte of text can become at most: 69 of a box, which takes 30 or more
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from cissod_bench.coco.parallel import serve; "
    "serve({file}, {channel}, {memory}, {slots}, {file_names!r})"
)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Part:
    """One part of one run: its list, the offsets after which its first and last gap lie, the slot for its arrays."""

    run: int
    number: int
    key: str
    start: int
    end: int
    slot: int


@dataclass(frozen=True)
class Decoded:
    """Elements of a list, with the offset of the first one and of the one after the last."""

    elements: Boxes | Images
    start: int
    end: int


@dataclass(frozen=True)
class _Result:
    """A part that a worker has finished; `rest` is what remains of `Decoded | None` once its arrays are in the slot."""

    part: _Part
    rest: bytes


class Workers:
    """Processes that decode parts of one file.

    Args:
        file: descriptor of the open, uncompressed file.
        path: named in error messages.
        file_names: as in `Decoder`.
        processes: how many.
        part: bytes that one of them decodes at a time.

    Raises:
        OSError: the system has no process, memory or descriptor left for them.
    """

    def __init__(self, file: int, path: Path, file_names: FileNames, processes: int, part: int) -> None:
        self._path = path
        self._part = part
        self._size = os.fstat(file).st_size
        self._run = self._failures = 0
        # While one part takes long, results of later parts must not pile up: there are as many as there are slots.
        self._free = list(range(2 * _WAITING * processes))
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}
        memory = shared_memory(len(self._free) * _ARRAYS_OF_TEXT * (part + _BEYOND))
        try:
            self._slots = Slots(memory, len(self._free))
            for _ in range(processes):
                self._start(file, memory, file_names)
        except OSError:
            self.__exit__()
            raise
        finally:
            os.close(memory)
        self._busy = dict.fromkeys(self._processes, 1)  # parts given to each; starting counts as one

    def _start(self, file: int, memory: int, file_names: FileNames) -> None:
        channel, other = Pipe()
        with other:
            program = _PROGRAM.format(
                path=sys.path,
                file=file,
                channel=other.fileno(),
                memory=memory,
                slots=len(self._free),
                file_names=file_names,
            )
            self._processes[channel] = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=(file, memory, other.fileno()),
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # more would spin for a while when NumPy starts
            )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for channel, process in self._processes.items():
            channel.close()
            process.terminate()
        for process in self._processes.values():
            process.wait()

    def ready(self) -> bool:
        """Whether `decoded` is worth calling: a worker has started, and the guesses have been right so far."""
        return self._failures < _MOST_FAILURES and (self._run > 0 or bool(wait(self._processes, timeout=0)))

    def decoded(self, key: str, start: int) -> Iterator[tuple[Boxes | Images, int]]:
        """Decode elements of a list as long as the guesses prove right.

        Args:
            key: `images` or `annotations`.
            start: offset of an element of that list.

        Yields:
            Elements in the order of the file, with the offset of the next one. Their arrays are valid until the next
            iteration.

        Raises:
            UserError: a worker was killed.
        """
        self._run += 1
        self._failures += 1
        results: dict[int, _Result] = {}
        number = given = 0
        expected = start
        while start + number * self._part < self._size:
            given = self._give(key, start, given)
            if number not in results:
                for channel in wait(self._processes):
                    assert isinstance(channel, Connection)
                    self._receive(channel, results)
                continue
            result = results.pop(number)
            found: Decoded | None = self._slots.get(result.rest)
            if found is None or found.start != expected:
                self._free += [done.part.slot for done in (result, *results.values())]
                return
            self._failures = 0
            number += 1
            expected = found.end
            yield found.elements, expected
            self._free.append(result.part.slot)

    def _give(self, key: str, start: int, given: int) -> int:
        """Hand out parts of this run to workers that have too few; returns how many have been handed out in all."""
        while self._free and start + given * self._part < self._size:
            channel = min(self._busy, key=self._busy.__getitem__)
            if self._busy[channel] >= _WAITING:
                break
            first = start + given * self._part
            try:
                channel.send(_Part(self._run, given, key, first, first + self._part, self._free[-1]))
            except OSError:
                raise self._killed(channel) from None
            self._free.pop()
            self._busy[channel] += 1
            given += 1
        return given

    def _receive(self, channel: Connection, results: "dict[int, _Result]") -> None:
        """Receive what a worker sends; into `results` if it belongs to this run."""
        try:
            result: _Result | None = channel.recv()
        except (EOFError, OSError):
            raise self._killed(channel) from None
        self._busy[channel] -= 1
        if result and result.part.run == self._run:
            results[result.part.number] = result
        elif result:
            self._free.append(result.part.slot)

    def _killed(self, channel: Connection) -> UserError:
        status = self._processes[channel].wait()
        what = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return UserError(
            f"{self._path} was not read: a worker process {what}. If memory has run out, free some, then run the "
            "command again."
        )


def serve(file: int, channel: int, memory: int, slots: int, file_names: FileNames) -> None:
    """The loop of a worker: decode the parts that arrive on a connection until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller receives it too and closes the connection
    gc.disable()  # as in `reader.no_garbage_collection`
    decoder = Decoder(Path(), file_names)
    shared, buffer = Slots(memory, slots), bytearray()
    try:
        with Connection(channel) as caller:
            caller.send(None)
            while True:
                part: _Part = caller.recv()
                decode = getattr(decoder, _METHODS[part.key])
                decoded = decode_part(file, decode, part.start, part.end, exact=part.number == 0, buffer=buffer)
                caller.send(_Result(part, shared.put(part.slot, decoded)))
    except (EOFError, OSError):
        return


_METHODS = {"images": "images", "annotations": "boxes"}


def decode_part(
    file: int,
    decode: Callable[[memoryview, int], Boxes | Images],
    start: int,
    end: int,
    *,
    exact: bool,
    buffer: bytearray,
) -> Decoded | None:
    """Decode elements from the first gap after `start` to the first gap after `end`; None where that fails.

    Args:
        file: descriptor of the file.
        decode: one of the methods of `Decoder`.
        start: where to look for the first gap.
        end: where to look for the last gap.
        exact: an element starts at `start`.
        buffer: receives the text; grown as needed and reused for the next part.
    """
    # The bytes around the elements become brackets, as in `stream.py`: one lies before the text.
    size = 1 + end - start + _BEYOND
    buffer.extend(bytes(max(0, size - len(buffer))))
    with memoryview(buffer) as view:
        filled = 1 + os.preadv(file, [view[1:size]], start)
        first = 1
        if not exact:
            gap = BETWEEN_ELEMENTS.search(buffer, 1, filled)
            if gap is None:
                return None
            first = gap.end()
        gap = BETWEEN_ELEMENTS.search(buffer, 1 + end - start, filled)
        if gap is None or gap.start() < first:
            return None
        buffer[first - 1] = ord("[")
        buffer[gap.start() + 1] = ord("]")
        try:
            with view[first - 1 : gap.start() + 2] as text:
                elements = decode(text, 0)
        except (UserError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the caller decodes it again and knows the place for the error message
        return Decoded(elements, start + first - 1, start + gap.end() - 1)
