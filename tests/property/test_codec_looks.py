"""
Sightings of several looks as bytes, and what becomes of values from before there were looks.
"""

from dataclasses import replace
from zlib import crc32

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.sightings import DIM, a_hash, a_scope, a_sighting, same
from worker.adapters.sighting_codec import (
    FACTS_MAGIC,
    LOOKED_MAGIC,
    LOOKS_MAGIC,
    pack_facts,
    pack_measured,
    unpack_facts,
    unpack_measured,
)
from worker.domain import Sighting

CAT = a_hash("cat")
SCOPE = replace(a_scope(), looks="looks-1, 8 of 100 px")
BINDING = f"{SCOPE.fingerprint_id}\0{SCOPE.views}\0{SCOPE.looks}\0{CAT}".encode()
OTHER = replace(SCOPE, looks="looks-1, 4 of 100 px")


def looked(count: int, *, shifted: int = 0) -> Sighting:
    """
    A sighting of an animation that was looked at so often.
    """
    facts = a_sighting(CAT).facts.model_copy(update={"frames_total": 40, "frames_scored": tuple(range(count))})
    first, *further = [
        replace(a_sighting(CAT, seed=seed, shift=(0.5, 0.25, 0.125) if seed < shifted else None), facts=facts)
        for seed in range(count)
    ]
    return replace(first, further=tuple(further))


@given(st.integers(1, 9), st.integers(0, 3))
def test_all_looks_come_back_bit_for_bit(count: int, shifted: int) -> None:
    """
    Packing and unpacking changes no look, and their order stays.
    """
    sighting = looked(count, shifted=shifted)
    measured = unpack_measured(pack_measured(sighting, CAT, SCOPE), CAT, SCOPE)
    facts = unpack_facts(pack_facts(sighting.facts, CAT, SCOPE), CAT, SCOPE)
    assert measured is not None
    assert facts is not None
    again = measured.with_facts(facts)

    assert again is not None
    assert count == len(again.looks)
    assert all(same(one, other) for one, other in zip(sighting.looks, again.looks, strict=True))


def test_a_still_picture_lies_in_the_bytes_of_ever() -> None:
    """
    How looks are chosen is no part of what is kept of an opaque still picture: old values are read on, by all.
    """
    still, before = a_sighting(CAT), a_scope()

    assert pack_measured(still, CAT, before) == pack_measured(still, CAT, SCOPE)
    assert pack_facts(still.facts, CAT, before) == pack_facts(still.facts, CAT, SCOPE)
    assert pack_facts(still.facts, CAT, SCOPE).startswith(FACTS_MAGIC)
    assert unpack_facts(pack_facts(still.facts, CAT, OTHER), CAT, SCOPE) == still.facts


def test_what_was_seen_of_an_animation_before_there_were_looks_is_a_miss() -> None:
    """
    An animation or a transparent picture that was looked at once, by an older worker, is looked at again.
    """
    facts = a_sighting(CAT).facts
    for changes in ({"frames_total": 3}, {"frames_total": None}, {"alpha": "composited"}):
        old = facts.model_copy(update=changes)
        content = FACTS_MAGIC + old.model_dump_json().encode()
        value = content + crc32(SCOPE.decode_rules.encode() + b"\0" + CAT.encode() + content).to_bytes(4, "little")

        assert unpack_facts(value, CAT, SCOPE) is None
        assert unpack_facts(pack_facts(old, CAT, SCOPE), CAT, SCOPE) == old
        assert pack_facts(old, CAT, SCOPE).startswith(LOOKED_MAGIC)


def test_looks_that_were_chosen_otherwise_are_a_miss() -> None:
    """
    A worker with other limits does not take over what this one made of an animation.
    """
    sighting = looked(3)

    assert unpack_measured(pack_measured(sighting, CAT, OTHER), CAT, SCOPE) is None
    assert unpack_facts(pack_facts(sighting.facts, CAT, OTHER), CAT, SCOPE) is None


def test_looks_and_facts_that_do_not_belong_together_are_no_sighting() -> None:
    """
    One of the two values may be from before: then neither is used.
    """
    one, three = (unpack_measured(pack_measured(looked(count), CAT, SCOPE), CAT, SCOPE) for count in (1, 3))
    assert one is not None
    assert three is not None

    assert one.with_facts(looked(3).facts) is None
    assert three.with_facts(looked(1).facts) is None
    assert three.with_facts(looked(3).facts) is not None


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_a_count_that_is_not_so_is_a_miss(count: int, cut: int) -> None:
    """
    A value that announces other looks than it holds, sealed all the same, raises nothing and means nothing.
    """
    whole = pack_measured(looked(3), CAT, SCOPE)[:-4]
    content = LOOKS_MAGIC + count.to_bytes(4, "little") + whole[8 : len(whole) - cut]
    binding = BINDING
    value = content + crc32(content, crc32(binding)).to_bytes(4, "little")

    assert (unpack_measured(value, CAT, SCOPE) is not None) == (count == 3 and cut == 0)


def test_every_look_is_checked() -> None:
    """
    A vector that is no unit vector makes the value a miss in whichever look it lies.
    """
    sighting = looked(2)
    whole = pack_measured(sighting, CAT, SCOPE)
    last = whole.rindex(sighting.looks[1].embedding.as_half().tobytes())
    content = whole[:last] + np.zeros(DIM, "<f2").tobytes() + whole[last + DIM * 2 : -4]
    binding = BINDING

    assert unpack_measured(content + crc32(content, crc32(binding)).to_bytes(4, "little"), CAT, SCOPE) is None
