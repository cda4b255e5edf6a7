"""
Decoders whose pictures are decoded in processes, small and quick to end, for the tests of ``worker.decoding``.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.conftest import ROOT
from tests.pictures import encoded, photograph, spec_of
from worker.decoding.process_decoder import Lifetimes, ProcessDecoder
from worker.decoding.protocol import Setup
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits
from worker.views import GLOBAL_ONLY, DecodedPicture, ViewSpec

SIZE = 16
STUB = (sys.executable, "-I", str(Path(__file__).with_name("stub_decoder_child.py")), str(ROOT))
LONG_S = 60.0
"""A time-out that no test waits for, on however busy a machine."""


def setup_of(*, views: ViewSpec = GLOBAL_ONLY, memory_bytes: int = 1 << 29, cpu_s: float = LONG_S) -> Setup:
    """
    What a child of these tests is told.
    """
    return Setup(spec_of(SIZE), DecodeLimits(), views, memory_bytes=memory_bytes, cpu_s=cpu_s, pictures=1000)


def a_png(seed: int = 0) -> bytes:
    """
    A small picture.
    """
    return encoded(photograph(24, 20, seed=seed), "PNG")


def hash_of(data: bytes) -> ContentHash:
    """
    Who the bytes are.
    """
    return ContentHash(hashlib.sha256(data).hexdigest())


@dataclass(slots=True)
class Rig:
    """
    A decoder, and why its children ended.
    """

    decoder: ProcessDecoder
    endings: list[str] = field(default_factory=list)

    def decode(self, data: bytes) -> DecodedPicture:
        """
        As the decoder does, of bytes under their own hash.
        """
        return self.decoder.decode(data, hash_of(data))

    def failure(self, data: bytes) -> UploadFailed:
        """
        Why these bytes could not be decoded.
        """
        try:
            self.decode(data)
        except UploadFailed as failure:
            return failure
        raise AssertionError("they could be decoded")


@contextmanager
def decoding(
    setup: Setup | None = None,
    *,
    threads: int = 1,
    timeout_s: float = LONG_S,
    recycle_after: int = 1000,
    program: tuple[str, ...] = STUB,
) -> Iterator[Rig]:
    """
    A decoder whose children are of ``program``, closed at the end.
    """
    endings: list[str] = []
    decoder = ProcessDecoder(
        setup or setup_of(), Lifetimes(threads, timeout_s, recycle_after), on_end=endings.append, program=program
    )
    try:
        yield Rig(decoder, endings)
    finally:
        decoder.close()


def gone(pids: Iterable[int]) -> bool:
    """
    Whether none of these processes is there any more.
    """
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def same(one: DecodedPicture, other: DecodedPicture) -> bool:
    """
    Whether two decoders found the same, to the last bit.
    """
    if (one.facts, one.realism, len(one.native), len(one.further)) != (
        other.facts,
        other.realism,
        len(other.native),
        len(other.further),
    ):
        return False
    views = zip((one.pixels, *one.native), (other.pixels, *other.native), strict=True)
    return all(np.array_equal(left, right) and left.dtype == right.dtype for left, right in views) and all(
        same(left, right) for left, right in zip(one.further, other.further, strict=True)
    )
