"""Arrays handed from one process to another through shared memory.

A pipe would copy them into the kernel and out again, a few kilobytes at a time.
"""

import mmap
import os
import pickle
import tempfile
from typing import Any

_LINE = 64  # bytes of a cache line; arrays are aligned to one


def shared_memory(size: int) -> int:
    """Descriptor of `size` bytes of anonymous memory, which is freed with the last process that has it open."""
    try:
        descriptor = os.memfd_create("cissod-bench")
    except (AttributeError, OSError):  # not on Linux, or forbidden
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.truncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Slots:
    """Shared memory in slots of equal size. Every process has its own `Slots` over the same descriptor.

    Args:
        descriptor: as from `shared_memory`; may be closed afterwards.
        number: how many slots.
    """

    def __init__(self, descriptor: int, number: int) -> None:
        size = os.fstat(descriptor).st_size
        self._memory = memoryview(mmap.mmap(descriptor, size))  # lives as long as an array in it
        self._size = size // number // _LINE * _LINE

    def put(self, slot: int, value: object) -> bytes:
        """Copy the arrays of a value into a slot; returns the rest of the value, from which `get` restores it.

        An array that does not fit into the slot becomes part of the rest.
        """
        spans: list[tuple[int, int]] = []
        place, end = slot * self._size, (slot + 1) * self._size

        def lay(buffer: pickle.PickleBuffer) -> bool:
            nonlocal place
            with buffer.raw() as raw:
                if place + raw.nbytes > end:
                    return True
                self._memory[place : place + raw.nbytes] = raw
                spans.append((place, place + raw.nbytes))
                place += -(-raw.nbytes // _LINE) * _LINE
                return False

        rest = pickle.dumps(value, protocol=5, buffer_callback=lay)
        return pickle.dumps((rest, spans))

    def get(self, rest: bytes) -> Any:
        """The value that was put. Its arrays lie in the slot and change when something else is put there."""
        rest, spans = pickle.loads(rest)
        return pickle.loads(rest, buffers=[self._memory[start:end] for start, end in spans])
