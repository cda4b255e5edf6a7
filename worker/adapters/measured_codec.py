"""
What was measured at one look at a picture, as bytes.

They are ``magic(4) dim(u32) natives(u32) float16[1 + natives, dim] float32[9]``, little endian. To whom such bytes
belong, and their checksum, is in ``sighting_codec.py``.
"""

import math
import struct
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from schemas.verdict import ImageFacts
from worker.domain import Embedding, Sighting
from worker.heads.features import REALISM, SHIFT

MEASURED_MAGIC: Final = b"TSe2"
_HEAD: Final = struct.Struct("<4sII")
_HALF: Final = np.dtype("<f2")
_SINGLE: Final = np.dtype("<f4")
_NUMBERS: Final = struct.Struct(f"<{1 + len(REALISM) + len(SHIFT)}f")


@dataclass(frozen=True, slots=True)
class Measured:
    """
    All of a sighting but its facts, which lie in a value of their own; ``further`` are the other looks.
    """

    embedding: Embedding
    norm: float
    native: tuple[Embedding, ...]
    realism: tuple[float, ...] | None
    shift: tuple[float, ...] | None
    further: "tuple[Measured, ...]" = ()

    def with_facts(self, facts: ImageFacts) -> Sighting | None:
        """
        The sighting, whole again; None for facts that tell of another number of looks.
        """
        if 1 + len(self.further) != max(1, len(facts.frames_scored)):
            return None
        first, *further = [
            Sighting(look.embedding, facts, look.norm, look.native, look.realism, look.shift)
            for look in (self, *self.further)
        ]
        return replace(first, further=tuple(further)) if further else first


def packed_look(sighting: Sighting, dim: int) -> bytes:
    """
    What was measured at the first look of a sighting.

    Raises ``ValueError`` for another dimension, and for numbers that would not come back as they are.
    """
    vectors = [sighting.embedding, *sighting.native]
    wrong = [embedding.vector.size for embedding in vectors if embedding.vector.shape != (dim,)]
    if wrong:
        raise ValueError(f"an embedding has {wrong[0]} dimensions, this encoder's have {dim}")
    head = _HEAD.pack(MEASURED_MAGIC, dim, len(sighting.native))
    halves = b"".join(embedding.as_half().astype(_HALF).tobytes() for embedding in vectors)
    return head + halves + _packed_numbers(sighting)


def unpacked_look(content: bytes, at: int, dim: int) -> tuple[Measured, int] | None:
    """
    The look that begins there, bit for bit, and where it ends; None where there is none.
    """
    if len(content) < at + _HEAD.size:
        return None
    magic, found_dim, natives = _HEAD.unpack_from(content, at)
    halves = (1 + natives) * dim
    numbers_at = at + _HEAD.size + halves * _HALF.itemsize
    end = numbers_at + _NUMBERS.size
    if (magic, found_dim) != (MEASURED_MAGIC, dim) or end > len(content):
        return None
    rows = np.frombuffer(content, _HALF, count=halves, offset=at + _HEAD.size).astype(np.float16).reshape(-1, dim)
    # As Python's numbers: nine of them are read sooner than an array of nine is made.
    numbers = _NUMBERS.unpack_from(content, numbers_at)
    realism_ends = 1 + len(REALISM)
    try:
        embedding, *native = [Embedding.from_half(row) for row in rows]
        look = Measured(
            embedding=embedding,
            norm=_norm(numbers[0]),
            native=tuple(native),
            realism=_finite_or_none(numbers[1:realism_ends]),
            shift=_finite_or_none(numbers[realism_ends:]),
        )
    except ValueError:  # no unit vectors, or numbers that nothing measures
        return None
    return look, end


def _packed_numbers(sighting: Sighting) -> bytes:
    realism, shift = _or_nan(sighting.realism, len(REALISM)), _or_nan(sighting.shift, len(SHIFT))
    numbers = np.array([_norm(sighting.norm), *realism, *shift], dtype=np.float64)
    with np.errstate(over="ignore"):
        singles = numbers.astype(_SINGLE)
    if not np.array_equal(numbers, singles, equal_nan=True):
        raise ValueError("a sighting's numbers must be float32, or a recalled one would not equal the one remembered")
    return singles.tobytes()


def _or_nan(measured: tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    if measured is None:
        return (math.nan,) * count
    if len(measured) != count or not all(map(math.isfinite, measured)):
        raise ValueError(f"a sighting was measured as {measured}, want {count} finite numbers, or None")
    return measured


def _norm(norm: float) -> float:
    """
    The length of raw features, or NaN where it is not known. Raises ``ValueError`` for what is no length.
    """
    if math.isnan(norm) or 0 < norm < math.inf:
        return norm
    raise ValueError(f"the features have norm {norm}, want a finite number above 0")


def _finite_or_none(numbers: tuple[float, ...]) -> tuple[float, ...] | None:
    """
    The numbers, None where all are NaN. Raises ``ValueError`` where only some are finite.
    """
    if all(map(math.isfinite, numbers)):
        return numbers
    if all(map(math.isnan, numbers)):
        return None
    raise ValueError("some of a sighting's numbers are not finite")
