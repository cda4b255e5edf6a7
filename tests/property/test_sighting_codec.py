"""
Sightings as bytes: what was packed comes back, and nothing else is ever taken for it.
"""

from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.verdict import ImageFacts
from tests.sightings import DIM, a_hash, a_scope, a_sighting
from worker.adapters.sighting_codec import (
    EMBEDDING_MAGIC,
    FACTS_MAGIC,
    embedding_key,
    facts_key,
    pack_embedding,
    pack_facts,
    unpack_embedding,
    unpack_facts,
)
from worker.domain import ContentHash, Embedding

CAT, DOG = a_hash("cat"), a_hash("dog")
SCOPE = a_scope()
EMBEDDING = pack_embedding(a_sighting(CAT).embedding, CAT, SCOPE)
FACTS = pack_facts(a_sighting(CAT).facts, CAT, SCOPE)

features = hnp.arrays(np.float32, DIM, elements=st.floats(-1e3, 1e3, width=32))
content_hashes = st.binary(min_size=32, max_size=32).map(lambda digest: ContentHash(digest.hex()))
words = st.text(max_size=20)
facts_of_cat = st.builds(
    ImageFacts,
    sha256=st.just(CAT),
    byte_length=st.integers(0, 2**40),
    format=st.none() | words,
    width=st.none() | st.integers(1, 2**31),
    height=st.none() | st.integers(1, 2**31),
    mode=st.none() | words,
    frames_total=st.none() | st.integers(1, 1000),
    frames_scored=st.lists(st.integers(0, 1000), max_size=5).map(tuple),
    orientation=st.none() | st.integers(1, 8),
    alpha=st.sampled_from([None, "none", "opaque", "composited"]),
    pdq=st.none() | words,
    pdq_quality=st.none() | st.integers(0, 100),
    media_type_mismatch=st.booleans(),
    warnings=st.lists(words, max_size=3).map(tuple),
)


def sealed(content: bytes, binding: str, content_hash: ContentHash) -> bytes:
    """
    Content with a right checksum, written out from the description of the format.
    """
    return content + crc32(binding.encode() + b"\0" + content_hash.encode() + content).to_bytes(4, "little")


@given(features, content_hashes)
def test_an_embedding_comes_back_bit_for_bit(raw: np.ndarray, content_hash: ContentHash) -> None:
    """
    Packing and unpacking an embedding changes no bit of it.
    """
    assume(float(np.linalg.norm(raw)) > 1e-6)
    embedding = Embedding.from_features(raw)
    unpacked = unpack_embedding(pack_embedding(embedding, content_hash, SCOPE), content_hash, SCOPE)

    assert unpacked is not None
    assert unpacked.vector.tobytes() == embedding.vector.tobytes()


@given(facts_of_cat)
def test_facts_come_back(facts: ImageFacts) -> None:
    """
    Packing and unpacking facts changes no field.
    """
    assert unpack_facts(pack_facts(facts, CAT, SCOPE), CAT, SCOPE) == facts


def test_the_format_is_what_the_description_says() -> None:
    """
    Other programs may write and read these values: magic, length, halves, checksum over key and content.
    """
    halves = a_sighting(CAT).embedding.as_half().astype("<f2").tobytes()
    content = EMBEDDING_MAGIC + DIM.to_bytes(4, "little") + halves

    assert sealed(content, SCOPE.fingerprint_id, CAT) == EMBEDDING
    assert sealed(FACTS_MAGIC + a_sighting(CAT).facts.model_dump_json().encode(), SCOPE.decode_rules, CAT) == FACTS


@given(st.binary(max_size=400))
def test_any_bytes_are_understood_or_not(value: bytes) -> None:
    """
    Whatever lies in the cache, looking at it raises nothing, and noise is no sighting.
    """
    assert unpack_embedding(value, CAT, SCOPE) is None
    assert unpack_facts(value, CAT, SCOPE) is None


@given(st.binary(max_size=200))
def test_any_bytes_with_a_right_checksum_raise_nothing(content: bytes) -> None:
    """
    A checksum can be right by intent: what it seals is still looked at as if it were noise.
    """
    assert unpack_embedding(sealed(content, SCOPE.fingerprint_id, CAT), CAT, SCOPE) is None
    assert unpack_facts(sealed(FACTS_MAGIC + content, SCOPE.decode_rules, CAT), CAT, SCOPE) is None


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    """
    Every single flipped bit of either value makes it a miss.
    """
    for position in range(len(EMBEDDING)):
        flipped = bytearray(EMBEDDING)
        flipped[position] ^= 1 << bit
        assert unpack_embedding(bytes(flipped), CAT, SCOPE) is None
    for position in range(len(FACTS)):
        flipped = bytearray(FACTS)
        flipped[position] ^= 1 << bit
        assert unpack_facts(bytes(flipped), CAT, SCOPE) is None


def test_no_shortened_or_lengthened_value_goes_unnoticed() -> None:
    """
    Every truncation, and any byte too many, makes a value a miss.
    """
    assert all(unpack_embedding(EMBEDDING[:end], CAT, SCOPE) is None for end in range(len(EMBEDDING)))
    assert all(unpack_facts(FACTS[:end], CAT, SCOPE) is None for end in range(len(FACTS)))
    assert unpack_embedding(EMBEDDING + b"\0", CAT, SCOPE) is None
    assert unpack_facts(FACTS + b"\0", CAT, SCOPE) is None


def test_a_value_belongs_to_its_key() -> None:
    """
    Copied to another hash, another encoder or other rules, a value is a miss; so is one kind taken for the other.
    """
    encoder = replace(SCOPE, fingerprint_id=a_hash("another encoder"))
    # Alike in the part that stands in the key: the whole is what is checked.
    twin = replace(SCOPE, fingerprint_id=SCOPE.fingerprint_id[:16] + "0" * 48)
    rules = replace(SCOPE, decode_rules=a_hash("other rules"))

    assert unpack_embedding(EMBEDDING, DOG, SCOPE) is None
    assert unpack_embedding(EMBEDDING, CAT, encoder) is None
    assert unpack_embedding(EMBEDDING, CAT, twin) is None
    assert unpack_facts(FACTS, DOG, SCOPE) is None
    assert unpack_facts(FACTS, CAT, rules) is None
    assert unpack_embedding(FACTS, CAT, SCOPE) is None
    assert unpack_facts(EMBEDDING, CAT, SCOPE) is None


@pytest.mark.parametrize("dim", [DIM - 1, DIM + 1, DIM * 2])
def test_an_embedding_of_another_dimension_is_none(dim: int) -> None:
    """
    A whole and sealed embedding of the wrong length is a miss, and cannot be packed.
    """
    other = replace(SCOPE, dim=dim)
    value = pack_embedding(a_sighting(CAT, dim=dim).embedding, CAT, other)

    assert unpack_embedding(value, CAT, SCOPE) is None
    with pytest.raises(ValueError, match="dimensions"):
        pack_embedding(a_sighting(CAT, dim=dim).embedding, CAT, SCOPE)


@pytest.mark.parametrize("number", [0.0, 1.0, float("nan"), float("inf"), -float("inf")])
def test_a_vector_that_is_no_unit_vector_is_none(number: float) -> None:
    """
    Zeros, NaN and infinities are a miss, even whole and sealed.
    """
    halves = np.full(DIM, number, dtype="<f2").tobytes()
    value = sealed(EMBEDDING_MAGIC + DIM.to_bytes(4, "little") + halves, SCOPE.fingerprint_id, CAT)

    assert unpack_embedding(value, CAT, SCOPE) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 10_000,
        b'{"sha256": "' + DOG.encode() + b'", "byte_length": 1}',
        b'{"sha256": "' + CAT.encode() + b'", "byte_length": -1}',
        b'{"sha256": "' + CAT.encode() + b'", "byte_length": 1, "unheard_of": 1}',
        b'{"sha256": "' + CAT.encode() + b'", "byte_length": 1}' + b" " * 70_000,
        b'{"sha256": "\xff", "byte_length": 1}',
    ],
    ids=["empty", "null", "list", "no fields", "deep", "other bytes", "negative", "unknown field", "huge", "no UTF-8"],
)
def test_sealed_json_that_is_no_facts_is_none(text: bytes) -> None:
    """
    Facts are validated like anything that comes from outside.
    """
    assert unpack_facts(sealed(FACTS_MAGIC + text, SCOPE.decode_rules, CAT), CAT, SCOPE) is None


@given(content_hashes, content_hashes)
def test_keys_tell_hashes_apart(one: ContentHash, other: ContentHash) -> None:
    """
    Two hashes never share a key, and an embedding never shares one with facts.
    """
    assume(one != other)
    keys = {
        key(content_hash, SCOPE, namespace="prod")
        for key in (embedding_key, facts_key)
        for content_hash in (one, other)
    }

    assert len(keys) == 4
    assert all(key.startswith(("touchstone:prod:e1:", "touchstone:prod:f1:")) for key in keys)
