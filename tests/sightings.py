"""
Sightings to remember, for whoever tests a cache.
"""

from hashlib import sha256

import numpy as np

from schemas.verdict import ContentCredentials, ImageFacts
from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Embedding, Sighting
from worker.ports import Remembered

DIM = 24
REALISM = (0.125, 300.5, 0.0625, 1200.25, 4096.5)
SHIFT = (0.03125, 0.25, 0.015625)


def a_hash(text: str) -> ContentHash:
    """
    The content hash of some bytes.
    """
    return ContentHash(sha256(text.encode()).hexdigest())


def a_scope(text: str = "encoder", *, dim: int = DIM) -> SightingScope:
    """
    The scope of some encoder.
    """
    return SightingScope(fingerprint_id=a_hash(text), dim=dim, decode_rules=a_hash("rules"))


def a_sighting(
    content_hash: ContentHash, *, seed: int = 0, dim: int = DIM, shift: tuple[float, ...] | None = None
) -> Sighting:
    """
    Embeddings in directions of their own, with facts that use every field; ``shift`` is seldom measured.
    """
    features, *crops = np.random.default_rng([int(content_hash[:8], 16), seed]).standard_normal((3, dim))
    facts = ImageFacts(
        sha256=content_hash,
        byte_length=83_211,
        format="PNG",
        width=1080,
        height=1350,
        mode="RGBA",
        frames_total=1,
        frames_scored=(0,),
        orientation=6,
        alpha="opaque",
        pdq="0123456789abcdef" * 4,
        pdq_quality=97,
        credentials=ContentCredentials(state="valid", issuer="Ünïcode Cameras", digital_source_type="digitalCapture"),
        warnings=("ICC_DROPPED", "ünïcode"),
    )
    return Sighting(
        Embedding.from_features(features),
        facts,
        norm=float(np.float32(np.linalg.norm(features))),
        native=tuple(map(Embedding.from_features, crops)),
        realism=REALISM,
        shift=shift,
    )


def same(one: Remembered, other: Sighting) -> bool:
    """
    Whether two sightings agree, the numbers bit for bit; a norm that is not known equals another. A failure is none.
    """
    return isinstance(one, Sighting) and one.facts == other.facts and bits(one) == bits(other)


def bits(sighting: Sighting) -> tuple[object, ...]:
    """
    All that was measured of a sighting, as it lies in memory.
    """
    vectors = [embedding.vector.tobytes() for embedding in (sighting.embedding, *sighting.native)]
    numbers = [sighting.norm, *(sighting.realism or ()), *(sighting.shift or ())]
    return (*vectors, sighting.realism is None, sighting.shift is None, np.array(numbers).tobytes())
