"""
Sightings as bytes that can lie in a shared cache: bytes in, values out, nothing else. No client library, no pickle.

What was measured is kept as ``magic(4) dim(u32) natives(u32) float16[1 + natives, dim] float32[9] crc32(u32)``, facts
as ``magic(4) JSON crc32(u32)``, all little endian. The vectors are that of the global view and those of the native
crops; the nine are the norm, five of realism and three of shift, NaN where they were not measured. The checksum also
covers the key that a value belongs to, so that a value found under another key is none. It is against damage and
mix-ups; against somebody who may write to the cache, use the cache's own access control.
"""

import math
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from schemas.verdict import ContentCredentials, ImageFacts
from worker.domain import ContentHash, Embedding, EncoderFingerprint, Sighting
from worker.heads.features import REALISM, SHIFT
from worker.views import GLOBAL_ONLY, ViewSpec

MEASURED_MAGIC: Final = b"TSe2"
FACTS_MAGIC: Final = b"TSf1"
FACTS_LIMIT_BYTES: Final = 65536
_HEAD: Final = struct.Struct("<4sII")
_CHECKSUM: Final = struct.Struct("<I")
_HALF: Final = np.dtype("<f2")
_SINGLE: Final = np.dtype("<f4")
_NUMBERS: Final = 1 + len(REALISM) + len(SHIFT)


@dataclass(frozen=True, slots=True)
class SightingScope:
    """
    What a sighting depends on beside the bytes: the encoder, the views, and the rules by which pictures are decoded.

    ``fingerprint_id``, ``decode_rules`` and ``views`` are sha256 hex digests; ``dim`` is the length of the encoder's
    vectors.
    """

    fingerprint_id: str
    dim: int
    decode_rules: str
    views: str = GLOBAL_ONLY.sha256

    @classmethod
    def of(
        cls,
        fingerprint: EncoderFingerprint,
        *,
        perceptual_hash: bool,
        views: ViewSpec = GLOBAL_ONLY,
        credentials: str | None = None,
    ) -> Self:
        """
        The scope of a worker: facts with and without a perceptual hash are not the same facts.

        ``credentials`` says how content credentials are read, such as a digest of the reader's version and its trust
        list, which decides what is ``trusted``; None where they are not read. The fields that facts have are part of
        the rules, so that workers of two releases do not remove each other's.
        """
        fields = f"{_fields_of(ImageFacts)} {_fields_of(ContentCredentials)}"
        rules = f"{fingerprint.preprocess.sha256} perceptual_hash={perceptual_hash} credentials={credentials} {fields}"
        return cls(fingerprint.id, fingerprint.dim, sha256(rules.encode()).hexdigest(), views.sha256)


@dataclass(frozen=True, slots=True)
class Measured:
    """
    All of a sighting but its facts, which lie in a value of their own.
    """

    embedding: Embedding
    norm: float
    native: tuple[Embedding, ...]
    realism: tuple[float, ...] | None
    shift: tuple[float, ...] | None

    def with_facts(self, facts: ImageFacts) -> Sighting:
        """
        The sighting, whole again.
        """
        return Sighting(self.embedding, facts, self.norm, self.native, self.realism, self.shift)


def scope_digest(scope: SightingScope) -> bytes:
    """
    Sixteen bytes that tell scopes apart wherever sightings are kept whole.
    """
    return sha256(f"{scope.fingerprint_id} {scope.views} {scope.decode_rules}".encode()).digest()[:16]


def scope_names(scope: SightingScope) -> tuple[str, str]:
    """
    The parts of the keys that tell scopes apart: of what was measured, and of the facts.
    """
    return f"e2:{scope.fingerprint_id[:16]}:{scope.views[:16]}", f"f1:{scope.decode_rules[:16]}"


def scopes_key(*, namespace: str) -> str:
    """
    Where the names of all scopes lie that were ever written to in this namespace, for whoever removes bytes from all.
    """
    return f"touchstone:{namespace}:s1"


def scoped_key(scope_name: str, content_hash: ContentHash, *, namespace: str) -> str:
    """
    Where a value of these bytes lies within a named scope.
    """
    return f"touchstone:{namespace}:{scope_name}:{content_hash}"


def measured_key(content_hash: ContentHash, scope: SightingScope, *, namespace: str) -> str:
    """
    Where lies what was measured of these bytes.
    """
    return scoped_key(scope_names(scope)[0], content_hash, namespace=namespace)


def facts_key(content_hash: ContentHash, scope: SightingScope, *, namespace: str) -> str:
    """
    Where the facts of these bytes lie; encoders that decode alike share them.
    """
    return scoped_key(scope_names(scope)[1], content_hash, namespace=namespace)


def pack_measured(sighting: Sighting, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    What was measured, as bytes, bound to its bytes' hash, its encoder and its views.

    Raises ``ValueError`` for another dimension, and for numbers that would not come back as they are.
    """
    vectors = [sighting.embedding, *sighting.native]
    wrong = [embedding.vector.size for embedding in vectors if embedding.vector.shape != (scope.dim,)]
    if wrong:
        raise ValueError(f"an embedding has {wrong[0]} dimensions, this encoder's have {scope.dim}")
    head = _HEAD.pack(MEASURED_MAGIC, scope.dim, len(sighting.native))
    halves = b"".join(embedding.as_half().astype(_HALF).tobytes() for embedding in vectors)
    return _sealed(head + halves + _packed_numbers(sighting), scope.fingerprint_id, scope.views, content_hash)


def unpack_measured(value: bytes, content_hash: ContentHash, scope: SightingScope) -> Measured | None:
    """
    What was packed for this hash, encoder and views, bit for bit; None for any other bytes.
    """
    content = _unsealed(value, scope.fingerprint_id, scope.views, content_hash)
    if content is None or len(content) < _HEAD.size:
        return None
    magic, dim, natives = _HEAD.unpack_from(content)
    halves = (1 + natives) * scope.dim
    length = _HEAD.size + halves * _HALF.itemsize + _NUMBERS * _SINGLE.itemsize
    if (magic, dim, len(content)) != (MEASURED_MAGIC, scope.dim, length):
        return None
    rows = np.frombuffer(content, _HALF, count=halves, offset=_HEAD.size).astype(np.float16).reshape(-1, dim)
    numbers = np.frombuffer(content, _SINGLE, offset=_HEAD.size + halves * _HALF.itemsize)
    realism_ends = 1 + len(REALISM)
    try:
        embedding, *native = [Embedding.from_half(row) for row in rows]
        return Measured(
            embedding=embedding,
            norm=_norm(float(numbers[0])),
            native=tuple(native),
            realism=_finite_or_none(numbers[1:realism_ends]),
            shift=_finite_or_none(numbers[realism_ends:]),
        )
    except ValueError:  # no unit vectors, or numbers that nothing measures
        return None


def pack_facts(facts: ImageFacts, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    The facts as bytes, bound to their bytes' hash and the rules of decoding.
    """
    content = FACTS_MAGIC + facts.model_dump_json().encode()
    return _sealed(content, scope.decode_rules, content_hash)


def unpack_facts(value: bytes, content_hash: ContentHash, scope: SightingScope) -> ImageFacts | None:
    """
    The facts that were packed for this hash and these rules; None for any other bytes.
    """
    if len(value) > FACTS_LIMIT_BYTES:
        return None
    content = _unsealed(value, scope.decode_rules, content_hash)
    if content is None or not content.startswith(FACTS_MAGIC):
        return None
    try:
        facts = ImageFacts.model_validate_json(content[len(FACTS_MAGIC) :])
    except ValidationError:
        return None
    return facts if facts.sha256 == content_hash else None


def _fields_of(model: type[BaseModel]) -> str:
    return ",".join(sorted(model.model_fields))


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


def _finite_or_none(numbers: NDArray[np.float32]) -> tuple[float, ...] | None:
    """
    The numbers, None where all are NaN. Raises ``ValueError`` where only some are finite.
    """
    if np.isnan(numbers).all():
        return None
    if not np.isfinite(numbers).all():
        raise ValueError("some of a sighting's numbers are not finite")
    return tuple(float(number) for number in numbers)


def _sealed(content: bytes, *key: str) -> bytes:
    return content + _CHECKSUM.pack(_checksum(content, key))


def _unsealed(value: bytes, *key: str) -> bytes | None:
    content, checksum = value[: -_CHECKSUM.size], value[-_CHECKSUM.size :]
    if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != _checksum(content, key):
        return None
    return content


def _checksum(content: bytes, key: tuple[str, ...]) -> int:
    return crc32(content, crc32("\0".join(key).encode()))
