"""
Sightings to remember, for whoever tests a cache.
"""

from hashlib import sha256

import numpy as np

from schemas.verdict import ImageFacts
from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Embedding, Sighting

DIM = 24


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


def a_sighting(content_hash: ContentHash, *, seed: int = 0, dim: int = DIM) -> Sighting:
    """
    An embedding in a direction of its own, with facts that use every field.
    """
    features = np.random.default_rng([int(content_hash[:8], 16), seed]).standard_normal(dim)
    facts = ImageFacts(
        sha256=content_hash,
        byte_length=83_211,
        format="PNG",
        width=1080,
        height=1350,
        mode="RGBA",
        frames_total=3,
        frames_scored=(0,),
        orientation=6,
        alpha="composited",
        pdq="0123456789abcdef" * 4,
        pdq_quality=97,
        warnings=("ICC_DROPPED", "ünïcode"),
    )
    return Sighting(Embedding.from_features(features), facts)


def same(one: Sighting, other: Sighting) -> bool:
    """
    Whether two sightings agree, the vectors bit for bit.
    """
    return one.facts == other.facts and one.embedding.vector.tobytes() == other.embedding.vector.tobytes()
