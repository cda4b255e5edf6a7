"""
Sightings as bytes that can lie in a shared cache: bytes in, values out, nothing else. No client library, no pickle.

What was measured is kept as what ``measured_codec.py`` makes of it with a ``crc32(u32)`` behind, facts as ``magic(4)
JSON crc32(u32)``, the code of bytes that are no readable image likewise, all little endian. Of a picture with several
looks it is ``magic(4) looks(u32)``, each look, and one checksum. The checksum also covers the key that a value belongs
to, so that a value found under another key is none. It is against damage and mix-ups; against somebody who may write to
the cache, use the cache's own access control.
"""

import re
import struct
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Self
from zlib import crc32

from pydantic import BaseModel, ValidationError

from schemas.errors import ErrorCode
from schemas.verdict import ContentCredentials, ImageFacts
from worker.adapters.measured_codec import Measured, packed_look, unpacked_look
from worker.domain import ContentHash, EncoderFingerprint, Sighting
from worker.flow.unreadable import LASTING
from worker.stages.decode_notes import READING_RULES
from worker.views import GLOBAL_ONLY, ViewSpec

LOOKS_MAGIC: Final = b"TSe3"
FACTS_MAGIC: Final = b"TSf1"
LOOKED_MAGIC: Final = b"TSf2"
"""
Begins the facts of what may have several looks: of an animation, and of what is transparent.

Its checksum covers how the looks were chosen. Facts of such pictures that begin with ``FACTS_MAGIC`` are from before
there were looks, and are a miss; those of all other pictures are the same bytes as ever.
"""
FACTS_LIMIT_BYTES: Final = 65536
FAILURE_MAGIC: Final = b"TSx1"
_SCOPE_NAME: Final = re.compile(rb"(?:e|fx?)[0-9]{1,3}(?::[0-9a-f]{16}){1,4}")
_LOOKS_HEAD: Final = struct.Struct("<4sI")
_CHECKSUM: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SightingScope:
    """
    What a sighting depends on beside the bytes: the encoder, the views, and the rules by which pictures are decoded.

    ``fingerprint_id``, ``decode_rules`` and ``views`` are sha256 hex digests; ``dim`` is the length of the encoder's
    vectors. ``looks`` says how the looks at animations and transparent pictures are chosen. ``decoders`` is the digest
    of what decides whether bytes are a readable image: no sighting depends on it.
    """

    fingerprint_id: str
    dim: int
    decode_rules: str
    views: str = GLOBAL_ONLY.sha256
    decoders: str = sha256(b"").hexdigest()
    looks: str = ""

    @classmethod
    def of(
        cls,
        fingerprint: EncoderFingerprint,
        *,
        perceptual_hash: bool,
        views: ViewSpec = GLOBAL_ONLY,
        credentials: str | None = None,
        decoders: str = "",
        looks: str = "",
    ) -> Self:
        """
        The scope of a worker: facts with and without a perceptual hash are not the same facts.

        ``credentials`` says how content credentials are read, such as a digest of the reader's version and its trust
        list, which decides what is ``trusted``; None where they are not read. How bytes are read and the fields that
        facts have are part of the rules, so that workers of two releases do not remove each other's. ``decoders``
        names the decoders' versions and the formats that are accepted.
        """
        fields = f"{_fields_of(ImageFacts)} {_fields_of(ContentCredentials)}"
        asked = f"perceptual_hash={perceptual_hash} credentials={credentials}"
        rules = f"{fingerprint.preprocess.sha256} {READING_RULES} {asked} {fields}"
        digests = [sha256(text.encode()).hexdigest() for text in (rules, decoders)]
        return cls(fingerprint.id, fingerprint.dim, digests[0], views.sha256, digests[1], looks)


def scope_digest(scope: SightingScope) -> bytes:
    """
    Sixteen bytes that tell scopes apart wherever sightings are kept whole.
    """
    return sha256(f"{scope.fingerprint_id} {scope.views} {scope.decode_rules}".encode()).digest()[:16]


def scope_names(scope: SightingScope) -> tuple[str, str, str]:
    """
    The parts of the keys that tell scopes apart: of what was measured, of the facts, and of failures.
    """
    # Vectors outlive the facts beside them, as they are not written over: both must be of one way to read bytes.
    reading = sha256(READING_RULES.encode()).hexdigest()
    measured = f"e2:{scope.fingerprint_id[:16]}:{scope.views[:16]}:{reading[:16]}"
    return measured, f"f1:{scope.decode_rules[:16]}", f"fx1:{scope.decoders[:16]}"


def read_scope_name(member: object) -> str | None:
    """
    The name of a scope in what was found among such names; None for what no release writes there.

    Later releases may count their formats on and tell scopes apart by more digests: such names are good as well.
    """
    if not isinstance(member, bytes) or not _SCOPE_NAME.fullmatch(member):
        return None
    return member.decode("ascii")


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


def failure_key(content_hash: ContentHash, scope: SightingScope, *, namespace: str) -> str:
    """
    Where it lies that these bytes are no readable image; encoders do not matter.
    """
    return scoped_key(scope_names(scope)[2], content_hash, namespace=namespace)


def pack_measured(sighting: Sighting, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    What was measured, as bytes, bound to its bytes' hash, its encoder and its views.

    Raises ``ValueError`` for another dimension, and for numbers that would not come back as they are.
    """
    content = b"".join(packed_look(look, scope.dim) for look in sighting.looks)
    if not sighting.further:
        return _sealed(content, scope.fingerprint_id, scope.views, content_hash)
    head = _LOOKS_HEAD.pack(LOOKS_MAGIC, len(sighting.looks))
    return _sealed(head + content, scope.fingerprint_id, scope.views, scope.looks, content_hash)


def unpack_measured(value: bytes, content_hash: ContentHash, scope: SightingScope) -> Measured | None:
    """
    What was packed for this hash, encoder and views, bit for bit; None for any other bytes.
    """
    if value.startswith(LOOKS_MAGIC):
        content = _unsealed(value, scope.fingerprint_id, scope.views, scope.looks, content_hash)
    else:
        content = _unsealed(value, scope.fingerprint_id, scope.views, content_hash)
    if content is None or len(content) < _LOOKS_HEAD.size:
        return None
    several = content.startswith(LOOKS_MAGIC)
    expected = _LOOKS_HEAD.unpack_from(content)[1] if several else 1
    at = _LOOKS_HEAD.size if several else 0
    looks: list[Measured] = []
    while at < len(content) and len(looks) < expected:
        found = unpacked_look(content, at, scope.dim)
        if found is None:
            return None
        look, at = found
        looks.append(look)
    # One look is written without a count.
    if at != len(content) or len(looks) != expected or several != (len(looks) > 1):
        return None
    return replace(looks[0], further=tuple(looks[1:])) if several else looks[0]


def pack_facts(facts: ImageFacts, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    The facts as bytes, bound to their bytes' hash and the rules of decoding.
    """
    magic = LOOKED_MAGIC if _may_have_looks(facts) else FACTS_MAGIC
    return _sealed(magic + facts.model_dump_json().encode(), *_facts_binding(magic, scope), content_hash)


def unpack_facts(value: bytes, content_hash: ContentHash, scope: SightingScope) -> ImageFacts | None:
    """
    The facts that were packed for this hash and these rules; None for any other bytes.
    """
    if len(value) > FACTS_LIMIT_BYTES:
        return None
    magic = LOOKED_MAGIC if value.startswith(LOOKED_MAGIC) else FACTS_MAGIC
    content = _unsealed(value, *_facts_binding(magic, scope), content_hash)
    if content is None or not content.startswith(magic):
        return None
    try:
        facts = ImageFacts.model_validate_json(content[len(FACTS_MAGIC) :])
    except ValidationError:
        return None
    fits = facts.sha256 == content_hash and _may_have_looks(facts) == (magic == LOOKED_MAGIC)
    return facts if fits else None


def _may_have_looks(facts: ImageFacts) -> bool:
    return facts.frames_total != 1 or facts.alpha == "composited"


def _facts_binding(magic: bytes, scope: SightingScope) -> tuple[str, ...]:
    return (scope.decode_rules, scope.looks) if magic == LOOKED_MAGIC else (scope.decode_rules,)


def pack_failure(code: ErrorCode, content_hash: ContentHash, scope: SightingScope) -> bytes:
    """
    The code as bytes, bound to its bytes' hash and the decoders. Raises ``ValueError`` for one that may not hold later.
    """
    if code not in LASTING:
        raise ValueError(f"{code} may not hold the next time, and is not kept; kept are {sorted(LASTING)}")
    return _sealed(FAILURE_MAGIC + code.encode(), scope.decoders, content_hash)


def unpack_failure(value: bytes, content_hash: ContentHash, scope: SightingScope) -> ErrorCode | None:
    """
    The code that was packed for this hash and these decoders; None for any other bytes.
    """
    content = _unsealed(value, scope.decoders, content_hash)
    return (
        None if content is None else next((code for code in LASTING if content == FAILURE_MAGIC + code.encode()), None)
    )


def _fields_of(model: type[BaseModel]) -> str:
    return ",".join(sorted(model.model_fields))


def _sealed(content: bytes, *key: str) -> bytes:
    return content + _CHECKSUM.pack(_checksum(content, key))


def _unsealed(value: bytes, *key: str) -> bytes | None:
    content, checksum = value[: -_CHECKSUM.size], value[-_CHECKSUM.size :]
    if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != _checksum(content, key):
        return None
    return content


def _checksum(content: bytes, key: tuple[str, ...]) -> int:
    return crc32(content, crc32("\0".join(key).encode()))
