"""
A safetensors file read once: hashed while it is read, and nothing is allocated that its own size does not vouch for.

The library's reader takes a path, so that what was hashed and what is loaded could be two files. What the tensors must
be is said in ``worker.bank.vectors``.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.bank.regular_files import PIECE_BYTES, opened

MAX_HEADER_BYTES: Final = 1_048_576
_LENGTH_BYTES: Final = 8
_DTYPES: Final = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "BOOL": "?",
}
_MAX_DIMENSIONS: Final = 8

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ReadTensors:
    """
    What was read, and the sha256 of exactly these bytes; with a ``problem`` there are no tensors.
    """

    sha256: str
    tensors: Tensors = field(repr=False)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


class _Unreadable(Exception):
    """
    The file is no safetensors file; the text says why.
    """


def read_tensor_file(path: Path, *, most_bytes: int) -> ReadTensors:
    """
    The tensors of a safetensors file.

    Raises ``FileRefused`` for what is no regular file of at most so many bytes, ``ReadFault`` for one that cannot be
    read at this moment.
    """
    with opened(path, most_bytes=most_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256()
        try:
            tensors = _read(file, size, digest)
            return ReadTensors(digest.hexdigest(), tensors)
        except _Unreadable as fault:
            # Its hash all the same: whether it was damaged on its way or written so are two different remedies.
            file.seek(0)
            whole = hashlib.sha256()
            while piece := file.read(PIECE_BYTES):
                whole.update(piece)
            return ReadTensors(whole.hexdigest(), {}, str(fault))


def _read(file: FileIO, size: int, digest: "hashlib._Hash") -> Tensors:
    length = int.from_bytes(_exactly(file, _LENGTH_BYTES, digest), "little")
    if length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        raise _Unreadable(f"its header claims {length} bytes")
    places = _places(_exactly(file, length, digest), size - _LENGTH_BYTES - length)
    tensors: Tensors = {}
    for place in places:
        tensor = np.empty(place.shape, dtype=place.dtype)
        if tensor.size:
            _fill(file, tensor.reshape(-1).data.cast("B"), digest)
        tensors[place.name] = tensor
    return tensors


def _places(header: bytes, data_bytes: int) -> list[_Place]:
    """
    Where each tensor lies, in the order of the file: one after the other, from the first byte of the data to the last.
    """
    try:
        said = json.loads(header)
    except (ValueError, RecursionError) as fault:
        raise _Unreadable("its header is no JSON") from fault
    if not isinstance(said, dict):
        raise _Unreadable("its header is no object")
    places = sorted(
        (_place(name, one) for name, one in said.items() if name != "__metadata__"),
        key=lambda one: (one.start, one.end),
    )
    at = 0
    for place in places:
        if place.start != at:
            raise _Unreadable(f"tensor {place.name[:80]!r} begins at byte {place.start} of the data, expected {at}")
        at = place.end
    if at != data_bytes:
        raise _Unreadable(f"its tensors end at byte {at} of {data_bytes} bytes of data")
    return places


def _place(name: str, said: object) -> _Place:
    match said:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise _Unreadable(f"tensor {name[:80]!r} is not described by dtype, shape and data_offsets")
    if dtype not in _DTYPES:
        raise _Unreadable(f"tensor {name[:80]!r} is of type {dtype[:20]!r}, expected one of {', '.join(_DTYPES)}")
    if len(shape) > _MAX_DIMENSIONS or not all(type(one) is int and one >= 0 for one in shape):
        raise _Unreadable(f"tensor {name[:80]!r} has no possible shape")
    found = np.dtype(_DTYPES[dtype])
    if not 0 <= start <= end or math.prod(shape) * found.itemsize != end - start:
        raise _Unreadable(f"tensor {name[:80]!r} has a shape that does not fill its {end - start} bytes")
    return _Place(name, found, tuple(shape), start, end)


def _exactly(file: FileIO, count: int, digest: "hashlib._Hash") -> bytes:
    found = bytearray(count)
    _fill(file, memoryview(found), digest)
    return bytes(found)


def _fill(file: FileIO, view: memoryview, digest: "hashlib._Hash") -> None:
    at = 0
    while at < len(view):
        piece = view[at : at + PIECE_BYTES]
        read = file.readinto(piece)
        if not read:
            raise _Unreadable("it ends in the middle of what its header announces")
        digest.update(piece[:read])
        at += read
