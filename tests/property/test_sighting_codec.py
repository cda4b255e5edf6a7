"""
Sightings as bytes: what was packed comes back, and nothing else is ever taken for it.
"""

import math
import struct
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.verdict import ContentCredentials, ImageFacts
from tests.fake_encoder import FakeEncoder
from tests.sightings import DIM, REALISM, SHIFT, a_hash, a_scope, a_sighting, same
from worker.adapters.measured_codec import MEASURED_MAGIC
from worker.adapters.sighting_codec import (
    FACTS_MAGIC,
    SightingScope,
    facts_key,
    measured_key,
    pack_facts,
    pack_measured,
    read_scope_name,
    scope_names,
    unpack_facts,
    unpack_measured,
)
from worker.domain import ContentHash, Embedding, Sighting
from worker.views import ViewSpec

CAT, DOG = a_hash("cat"), a_hash("dog")
SCOPE = a_scope()
MEASURED = pack_measured(a_sighting(CAT), CAT, SCOPE)
FACTS = pack_facts(a_sighting(CAT).facts, CAT, SCOPE)

BINDING = SCOPE.fingerprint_id + "\0" + SCOPE.views

features = hnp.arrays(np.float32, DIM, elements=st.floats(-1e3, 1e3, width=32)).filter(
    lambda raw: float(np.linalg.norm(raw)) > 1e-6
)
embeddings = features.map(Embedding.from_features)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
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
    credentials=st.none()
    | st.builds(
        ContentCredentials,
        state=st.sampled_from([None, "invalid", "valid", "trusted"]),
        issuer=st.none() | words,
        digital_source_type=st.none() | words,
    ),
    warnings=st.lists(words, max_size=3).map(tuple),
)
sightings_of_cat = st.builds(
    Sighting,
    embedding=embeddings,
    facts=st.just(a_sighting(CAT).facts),
    norm=st.just(math.nan) | st.floats(min_value=2.0**-100, max_value=2.0**100, width=32),
    native=st.lists(embeddings, max_size=3).map(tuple),
    realism=st.none() | st.tuples(*[singles] * len(REALISM)),
    shift=st.none() | st.tuples(*[singles] * len(SHIFT)),
)


def sealed(content: bytes, binding: str, content_hash: ContentHash) -> bytes:
    """
    Content with a right checksum, written out from the description of the format.
    """
    return content + crc32(binding.encode() + b"\0" + content_hash.encode() + content).to_bytes(4, "little")


@given(sightings_of_cat, content_hashes)
def test_what_was_measured_comes_back_bit_for_bit(sighting: Sighting, content_hash: ContentHash) -> None:
    """
    Packing and unpacking a sighting changes no bit of it, whatever of it was measured.
    """
    unpacked = unpack_measured(pack_measured(sighting, content_hash, SCOPE), content_hash, SCOPE)

    assert unpacked is not None
    assert (whole := unpacked.with_facts(sighting.facts)) is not None
    assert same(sighting, whole)


@given(facts_of_cat)
def test_facts_come_back(facts: ImageFacts) -> None:
    """
    Packing and unpacking facts changes no field.
    """
    assert unpack_facts(pack_facts(facts, CAT, SCOPE), CAT, SCOPE) == facts


def test_the_format_is_what_the_description_says() -> None:
    """
    Other programs may write and read these values: magic, lengths, halves, singles, checksum over key and content.
    """
    sighting = a_sighting(CAT)
    halves = b"".join(one.as_half().astype("<f2").tobytes() for one in (sighting.embedding, *sighting.native))
    numbers = struct.pack("<9f", sighting.norm, *REALISM, math.nan, math.nan, math.nan)
    content = MEASURED_MAGIC + DIM.to_bytes(4, "little") + (2).to_bytes(4, "little") + halves + numbers

    assert sealed(content, BINDING, CAT) == MEASURED
    assert sealed(FACTS_MAGIC + sighting.facts.model_dump_json().encode(), SCOPE.decode_rules, CAT) == FACTS


@given(st.binary(max_size=400))
def test_any_bytes_are_understood_or_not(value: bytes) -> None:
    """
    Whatever lies in the cache, looking at it raises nothing, and noise is no sighting.
    """
    assert unpack_measured(value, CAT, SCOPE) is None
    assert unpack_facts(value, CAT, SCOPE) is None


@given(st.binary(max_size=200))
def test_any_bytes_with_a_right_checksum_raise_nothing(content: bytes) -> None:
    """
    A checksum can be right by intent: what it seals is still looked at as if it were noise.
    """
    assert unpack_measured(sealed(content, BINDING, CAT), CAT, SCOPE) is None
    assert unpack_measured(sealed(MEASURED_MAGIC + content, BINDING, CAT), CAT, SCOPE) is None
    assert unpack_facts(sealed(FACTS_MAGIC + content, SCOPE.decode_rules, CAT), CAT, SCOPE) is None


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    """
    Every single flipped bit of either value makes it a miss.
    """
    for position in range(len(MEASURED)):
        flipped = bytearray(MEASURED)
        flipped[position] ^= 1 << bit
        assert unpack_measured(bytes(flipped), CAT, SCOPE) is None
    for position in range(len(FACTS)):
        flipped = bytearray(FACTS)
        flipped[position] ^= 1 << bit
        assert unpack_facts(bytes(flipped), CAT, SCOPE) is None


def test_no_shortened_or_lengthened_value_goes_unnoticed() -> None:
    """
    Every truncation, and any byte too many, makes a value a miss.
    """
    assert all(unpack_measured(MEASURED[:end], CAT, SCOPE) is None for end in range(len(MEASURED)))
    assert all(unpack_facts(FACTS[:end], CAT, SCOPE) is None for end in range(len(FACTS)))
    assert unpack_measured(MEASURED + b"\0", CAT, SCOPE) is None
    assert unpack_facts(FACTS + b"\0", CAT, SCOPE) is None


def test_a_value_belongs_to_its_key() -> None:
    """
    Moved to another hash, encoder, views or rules, a value is a miss; so is one kind taken for the other.
    """
    encoder = replace(SCOPE, fingerprint_id=a_hash("another encoder"))
    # Alike in the part that stands in the key: the whole is what is checked.
    twin = replace(SCOPE, fingerprint_id=SCOPE.fingerprint_id[:16] + "0" * 48)
    views = replace(SCOPE, views=ViewSpec(native_crops=3).sha256)
    rules = replace(SCOPE, decode_rules=a_hash("other rules"))

    assert unpack_measured(MEASURED, DOG, SCOPE) is None
    assert unpack_measured(MEASURED, CAT, encoder) is None
    assert unpack_measured(MEASURED, CAT, twin) is None
    assert unpack_measured(MEASURED, CAT, views) is None
    assert unpack_facts(FACTS, DOG, SCOPE) is None
    assert unpack_facts(FACTS, CAT, rules) is None
    assert unpack_measured(FACTS, CAT, SCOPE) is None
    assert unpack_facts(MEASURED, CAT, SCOPE) is None


@pytest.mark.parametrize("dim", [DIM - 1, DIM + 1, DIM * 2])
def test_a_sighting_of_another_dimension_is_none(dim: int) -> None:
    """
    A whole and sealed sighting of the wrong length is a miss, and cannot be packed.
    """
    other = replace(SCOPE, dim=dim)
    value = pack_measured(a_sighting(CAT, dim=dim), CAT, other)

    assert unpack_measured(value, CAT, SCOPE) is None
    with pytest.raises(ValueError, match="dimensions"):
        pack_measured(a_sighting(CAT, dim=dim), CAT, SCOPE)


@pytest.mark.parametrize("number", [0.0, 1.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 2])
def test_a_vector_that_is_no_unit_vector_is_none(number: float, row: int) -> None:
    """
    Zeros, NaN and infinities are a miss, even whole and sealed, in the global view's place or in a crop's.
    """
    start = 12 + row * DIM * 2
    content = MEASURED[:start] + np.full(DIM, number, dtype="<f2").tobytes() + MEASURED[start + DIM * 2 : -4]

    assert unpack_measured(sealed(MEASURED[:-4], BINDING, CAT), CAT, SCOPE) is not None
    assert unpack_measured(sealed(content, BINDING, CAT), CAT, SCOPE) is None


@pytest.mark.parametrize(
    ("at", "number"),
    [(0, 0.0), (0, -1.0), (0, math.inf), (1, math.nan), (5, math.inf), (6, 1.0), (8, -math.inf)],
)
def test_numbers_that_nothing_measures_are_none(at: int, number: float) -> None:
    """
    No norm is zero, negative or infinite, and of realism and shift all is known or nothing.
    """
    start = len(MEASURED) - 4 - 9 * 4 + at * 4
    content = MEASURED[:start] + struct.pack("<f", number) + MEASURED[start + 4 : -4]

    assert unpack_measured(sealed(content, BINDING, CAT), CAT, SCOPE) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": 0.1},
        {"norm": 1e300},
        {"norm": 0.0},
        {"norm": math.inf},
        {"realism": REALISM[1:]},
        {"realism": (*REALISM[1:], math.nan)},
        {"realism": (math.nan,) * len(REALISM)},
        {"shift": (*SHIFT, 0.5)},
        {"shift": (0.1, 0.5, 0.5)},
    ],
    ids=str,
)
def test_what_would_not_come_back_as_it_is_cannot_be_packed(changes: dict[str, Any]) -> None:
    """
    Numbers that are no float32, not finite or of a wrong count are refused before they are written.
    """
    with pytest.raises(ValueError, match=r"float32|want"):
        pack_measured(replace(a_sighting(CAT), **changes), CAT, SCOPE)


def test_a_scope_tells_apart_what_sightings_depend_on() -> None:
    """
    Workers of other views, or with other facts, have other scopes; perturbation, asked only here and there, makes none.
    """
    fingerprint = FakeEncoder().fingerprint
    of = [
        SightingScope.of(fingerprint, perceptual_hash=False),
        SightingScope.of(fingerprint, perceptual_hash=True),
        SightingScope.of(fingerprint, perceptual_hash=False, credentials="reader 1"),
        SightingScope.of(fingerprint, perceptual_hash=False, credentials="reader 1, other trust list"),
        SightingScope.of(fingerprint, perceptual_hash=False, views=ViewSpec(native_crops=2)),
        SightingScope.of(fingerprint, perceptual_hash=False, views=ViewSpec(realism=True)),
        SightingScope.of(fingerprint, perceptual_hash=False, views=ViewSpec(reencode_quality=90)),
    ]

    assert len(of) == len(set(of))
    assert of[0] == SightingScope.of(fingerprint, perceptual_hash=False, views=ViewSpec(perturbation=True))
    assert measured_key(CAT, of[0], namespace="n") != measured_key(CAT, of[4], namespace="n")
    assert facts_key(CAT, of[0], namespace="n") == facts_key(CAT, of[4], namespace="n")
    assert facts_key(CAT, of[0], namespace="n") != facts_key(CAT, of[2], namespace="n")


def test_what_was_read_by_other_rules_is_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Facts and vectors of an earlier release, of bytes that this one reads otherwise, are not taken for its own.
    """
    fingerprint = FakeEncoder().fingerprint
    keys = []
    for rules in ("reading-1", "reading-2", "reading-3"):
        monkeypatch.setattr("worker.adapters.sighting_codec.READING_RULES", rules)
        scope = SightingScope.of(fingerprint, perceptual_hash=True)
        keys += [measured_key(CAT, scope, namespace="n"), facts_key(CAT, scope, namespace="n")]

    assert len(keys) == len(set(keys))


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
    Two hashes never share a key, and what was measured never shares one with facts.
    """
    assume(one != other)
    keys = {
        key(content_hash, SCOPE, namespace="prod") for key in (measured_key, facts_key) for content_hash in (one, other)
    }

    assert len(keys) == 4
    assert all(key.startswith(("touchstone:prod:e2:", "touchstone:prod:f1:")) for key in keys)


def test_every_name_of_a_scope_is_read_as_it_is_written() -> None:
    """
    A worker's own, those of its test encoder, and those of a later release that counts its formats on.
    """
    scopes = [SightingScope.of(FakeEncoder().fingerprint, perceptual_hash=True), a_scope()]
    names = [name for scope in scopes for name in scope_names(scope)]
    names += [f"e3:{'0' * 16}:{'f' * 16}:{'a' * 16}", f"f12:{'b' * 16}"]

    assert names == [read_scope_name(name.encode()) for name in names]


@given(st.binary(max_size=90) | st.none() | st.integers() | st.lists(st.binary(max_size=3)))
def test_what_no_worker_wrote_is_no_scope(member: object) -> None:
    """
    Nothing is raised, and nothing of it ever stands in a key but what a scope's name may be.
    """
    name = read_scope_name(member)

    assert name is None or (isinstance(member, bytes) and name.encode() == member and name[0] in "ef")


@pytest.mark.parametrize(
    "prefix", ["g1", "u1:acme", "s1", "e2", "E2:" + "0" * 16, "f1:" + "0" * 16 + ":", "f1:" + "g" * 16]
)
def test_other_keys_are_no_scopes(prefix: str) -> None:
    """
    A name that led to marks, to names of contents or to any other key would have these removed.
    """
    assert read_scope_name(prefix.encode()) is None
