"""
PNGs put together chunk by chunk, for what no encoder writes.
"""

import random
import struct
import zlib

import numpy as np

from worker.stages.decode import DecodeLimits

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3
ON_BOTH_GROUNDS = DecodeLimits(max_frames=8, on_grey=True)

Chunk = tuple[bytes, bytes]


def chunks_of(png: bytes) -> list[Chunk]:
    """
    Name and content of each chunk; what lies behind the last whole one is left out.
    """
    found, at = [], len(SIGNATURE)
    while at + 8 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[Chunk]) -> bytes:
    """
    The file with these chunks, every checksum right.
    """
    parts = [struct.pack(">I", len(body)) + kind + body + _checksum(kind, body) for kind, body in chunks]
    return SIGNATURE + b"".join(parts)


def with_chunk(png: bytes, added: Chunk, *, before: bytes) -> bytes:
    """
    The file with one chunk more, before the first of this name.
    """
    chunks = chunks_of(png)
    at = [kind for kind, _ in chunks].index(before)
    return png_of([*chunks[:at], added, *chunks[at:]])


def repaired(data: bytes) -> bytes:
    """
    The file with the checksum of each chunk put right, as far as its chunks follow one another; others as they are.
    """
    if not data.startswith(SIGNATURE):
        return data
    mended, at = bytearray(data), len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        mended[end : end + 4] = _checksum(data[at + 4 : at + 8], data[at + 8 : end])
        at = end + 4
    return bytes(mended)


def rearranged(png: bytes, rng: random.Random) -> bytes:
    """
    The file with a chunk left out, doubled, moved or exchanged for another, or with a few of its bytes changed.

    Compressed pixels are left alone, for whatever is done to them ends the same way.
    """
    chunks = chunks_of(png)
    at, other = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    kind = rng.randrange(8)
    if kind == 0:
        del chunks[at]
    elif kind == 1:
        chunks.insert(other, chunks[at])
    elif kind == 2:
        chunks[at], chunks[other] = chunks[other], chunks[at]
    else:
        small = [number for number, (name, body) in enumerate(chunks) if body and name not in (b"IDAT", b"fdAT")]
        for number in rng.sample(small, min(len(small), rng.randint(1, 2))):
            name, body = chunks[number]
            place = rng.randrange(len(body))
            chunks[number] = (
                name,
                body[:place] + bytes([rng.choice((0, 1, 2, 255, rng.randrange(256)))]) + body[place + 1 :],
            )
    return png_of(chunks)


def samples(values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], depth: int, kind: int) -> list[Chunk]:
    """
    The chunks of a picture of uint16[h, w] greys or indices or uint16[h, w, 3] colours, at this depth.
    """
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]


def _checksum(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(kind + body))
