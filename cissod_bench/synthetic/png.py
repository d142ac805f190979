"""PNG files whose bytes depend on the pixels alone.

zlib's compressed bytes differ between versions and builds (zlib-ng, hardware deflate), so a data set that is promised
to be byte-identical cannot be written through it. This encoder is deflate with one Huffman code per image and no
matches (RFC 1951 sec. 3.2.7), after the Paeth filter of the PNG specification: integer arithmetic only, every decoder
reads it, and noisy images, which have no repeats to match, come out about as small as from zlib.
"""

import heapq
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END_OF_BLOCK = 256
_LONGEST_CODE = 15
# The order in which a deflate block lists the lengths of its code-length code (RFC 1951 sec. 3.2.7).
_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG file of an RGB image.

    Args:
        pixels: uint8 of shape (height, width, 3).

    Raises:
        ValueError: another shape or dtype, or an empty image.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"need uint8 pixels of shape (height, width, 3), got {pixels.dtype} {pixels.shape}")
    height, width, _ = pixels.shape
    raw = _paeth_filter(pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # 0x78 0x01: deflate with a 32 KiB window. Checksums are standards, so zlib's are the same everywhere.
    stream = b"\x78\x01" + _deflate(raw) + struct.pack(">I", zlib.adler32(raw))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _paeth_filter(pixels: NDArray[np.uint8]) -> bytes:
    """Rows of filter 4 (Paeth): each byte minus the nearest of left, above, upper left to left + above - upper left."""
    height, width, channels = pixels.shape
    padded = np.zeros((height + 1, width + 1, channels), np.int16)
    padded[1:, 1:] = pixels
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    to_left, to_above, to_corner = np.abs(above - corner), np.abs(left - corner), np.abs(left + above - 2 * corner)
    predicted = np.where(
        (to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner)
    )
    residual = ((padded[1:, 1:] - predicted) & 0xFF).astype(np.uint8)
    rows = np.full((height, 1 + width * channels), 4, np.uint8)
    rows[:, 1:] = residual.reshape(height, -1)
    return rows.tobytes()


def _deflate(raw: bytes) -> bytes:
    """One final deflate block with its own Huffman code, literals only."""
    symbols = np.append(np.frombuffer(raw, np.uint8).astype(np.int64), _END_OF_BLOCK)
    lengths = code_lengths(np.bincount(symbols, minlength=_END_OF_BLOCK + 1).tolist())
    # Block header: final, dynamic codes, 257 literal codes, 1 distance code (required, unused), 19 code lengths. The
    # code-length code gives each of the lengths 0..15 four bits and leaves out the repeat symbols 16, 17, 18.
    header = [(1, 1), (2, 2), (0, 5), (0, 5), (15, 4)]
    header += [(4 if symbol < 16 else 0, 3) for symbol in _LENGTH_ORDER]
    bits = [value >> place & 1 for value, size in header for place in range(size)]
    # Huffman codes, unlike numbers, start with their highest bit; the code of length n is n itself.
    bits += [length >> place & 1 for length in [*lengths, 1] for place in (3, 2, 1, 0)]
    bit_table, used = _code_table(lengths)
    body = bit_table[symbols][used[symbols]]
    return np.packbits(np.concatenate([np.array(bits, np.uint8), body]), bitorder="little").tobytes()


def code_lengths(counts: list[int]) -> list[int]:
    """Huffman code lengths of at most 15 bits for at least two symbols with a count above 0; 0 for the others."""
    while True:
        # Ties are broken by age, so that the same counts always give the same code.
        heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count]
        heapq.heapify(heap)
        lengths = [0] * len(counts)
        age = len(counts)
        while len(heap) > 1:
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            members = first[2] + second[2]
            for symbol in members:
                lengths[symbol] += 1
            heapq.heappush(heap, (first[0] + second[0], age, members))
            age += 1
        if max(lengths) <= _LONGEST_CODE:
            return lengths
        counts = [(count + 1) // 2 for count in counts]


def _code_table(lengths: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Canonical codes (RFC 1951 sec. 3.2.2) as bits, first bit first, and which of the 15 places each code uses."""
    bits = np.zeros((len(lengths), _LONGEST_CODE), np.uint8)
    used = np.arange(_LONGEST_CODE) < np.array(lengths)[:, None]
    code = 0
    for length in range(1, _LONGEST_CODE + 1):
        for symbol in (symbol for symbol, own in enumerate(lengths) if own == length):
            bits[symbol, :length] = [code >> place & 1 for place in range(length - 1, -1, -1)]
            code += 1
        code <<= 1
    return bits, used
