"""
Sightings as bytes that can lie in a shared cache: bytes in, values out, nothing else. No client library, no pickle.

An embedding is kept as ``magic(4) dim(u32) float16[dim] crc32(u32)``, facts as ``magic(4) JSON crc32(u32)``, all little
endian. The checksum also covers the key that a value belongs to, so that a value found under another key is none.
It is against damage and mix-ups; against somebody who may write to the cache, use the cache's own access control.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self
from zlib import crc32

import numpy as np
from pydantic import ValidationError

from schemas.verdict import ImageFacts
from worker.domain import ContentHash, Embedding, EncoderFingerprint

EMBEDDING_MAGIC: Final = b"TSe1"
FACTS_MAGIC: Final = b"TSf1"
FACTS_LIMIT_BYTES: Final = 65536
_DIM: Final = struct.Struct("<I")
_CHECKSUM: Final = struct.Struct("<I")
_HALF: Final = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class SightingScope:
    """
    What a sighting depends on beside the bytes: the encoder, and the rules by which pictures are decoded.

    ``fingerprint_id`` and ``decode_rules`` are sha256 hex digests; ``dim`` is the length of the encoder's vectors.
    """

    fingerprint_id: str
    dim: int
    decode_rules: str

    @classmethod
    def of(cls, fingerprint: EncoderFingerprint, *, perceptual_hash: bool) -> Self:
        """
        The scope of a worker: facts with and without a perceptual hash are not the same facts.

        The fields that facts have are part of the rules, so that workers of two releases do not remove each other's.
        """
        fields = ",".join(sorted(ImageFacts.model_fields))
        rules = f"{fingerprint.preprocess.sha256} perceptual_hash={perceptual_hash} {fields}"
        return cls(fingerprint.id, fingerprint.dim, sha256(rules.encode()).hexdigest())


def embedding_key(content_hash: ContentHash, scope: SightingScope, *, namespace: str) -> str:
    """
    Where the embedding of these bytes lies.
    """
    return f"touchstone:{namespace}:e1:{scope.fingerprint_id[:16]}:{content_hash}"


def facts_key(content_hash: ContentHash, scope: SightingScope, *, namespace: str) -> str:
    """
    Where the facts of these bytes lie; encoders that decode alike share them.
    """
    return f"touchstone:{namespace}:f1:{scope.decode_rules[:16]}:{content_hash}"


def pack_embedding(embedding: Embedding, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    The embedding as bytes, bound to its bytes' hash and its encoder. Raises ``ValueError`` for another dimension.
    """
    if embedding.vector.shape != (scope.dim,):
        raise ValueError(f"embedding has {embedding.vector.size} dimensions, this encoder's have {scope.dim}")
    content = EMBEDDING_MAGIC + _DIM.pack(scope.dim) + embedding.as_half().astype(_HALF).tobytes()
    return _sealed(content, scope.fingerprint_id, content_hash)


def unpack_embedding(value: bytes, content_hash: ContentHash, scope: SightingScope) -> Embedding | None:
    """
    The embedding that was packed for this hash and encoder, bit for bit; None for any other bytes.
    """
    if len(value) != len(EMBEDDING_MAGIC) + _DIM.size + scope.dim * _HALF.itemsize + _CHECKSUM.size:
        return None
    content = _unsealed(value, scope.fingerprint_id, content_hash)
    head = EMBEDDING_MAGIC + _DIM.pack(scope.dim)
    if content is None or not content.startswith(head):
        return None
    try:
        return Embedding.from_half(np.frombuffer(content, dtype=_HALF, offset=len(head)).astype(np.float16))
    except ValueError:  # not finite, or no unit vector
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


def _sealed(content: bytes, *key: str) -> bytes:
    return content + _CHECKSUM.pack(_checksum(content, key))


def _unsealed(value: bytes, *key: str) -> bytes | None:
    content, checksum = value[: -_CHECKSUM.size], value[-_CHECKSUM.size :]
    if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != _checksum(content, key):
        return None
    return content


def _checksum(content: bytes, key: tuple[str, ...]) -> int:
    return crc32(content, crc32("\0".join(key).encode()))
