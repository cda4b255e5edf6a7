"""
Laws of the protocol: a picture comes through as it was, and nothing else that can be written is taken for a picture.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.verdict import ContentCredentials, ImageFacts
from tests.decoding_rig import SIZE, hash_of, same, setup_of
from worker.decoding.protocol import (
    ANSWER,
    HEADER_LIMIT_BYTES,
    Expected,
    Garbled,
    Setup,
    answered,
    hello_of,
    lengths_of,
)
from worker.stages.decode import DecodeLimits
from worker.views import DecodedPicture, Undecoded, ViewSpec

CROPS = 3
DATA = b"the bytes of a picture"
SETUP = replace(setup_of(views=ViewSpec(native_crops=CROPS, realism=True)), limits=DecodeLimits(max_frames=2))
EXPECTED = Expected(SETUP, hash_of(DATA), len(DATA))
FACTS = ImageFacts(sha256=hash_of(DATA), byte_length=len(DATA), format="PNG", width=30, height=20)

views = arrays(np.uint8, (SIZE, SIZE, 3), elements=st.integers(0, 255), fill=st.integers(0, 255))
statistics = st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 5)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def pictures(draw: st.DrawFn) -> DecodedPicture:
    """
    A picture with all its views, and at times with further frames.
    """
    facts = FACTS.model_copy(
        update={
            "warnings": tuple(draw(st.lists(st.text(max_size=9), max_size=3))),
            "alpha": draw(st.sampled_from(("none", "opaque", "composited", None))),
            "credentials": draw(st.none() | st.builds(ContentCredentials, state=st.none(), issuer=st.text(max_size=9))),
        }
    )
    frames = [
        DecodedPicture(draw(views), facts, tuple(draw(st.lists(views, max_size=CROPS))), draw(statistics))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return replace(frames[0], further=tuple(frames[1:]))


def decoded(found: DecodedPicture | Undecoded) -> DecodedPicture:
    """
    A picture that no child was told to leave to a device.
    """
    assert isinstance(found, DecodedPicture)
    return found


def read(frame: bytes) -> DecodedPicture:
    """
    A frame as the parent reads it.
    """
    header, body = lengths_of(frame[: ANSWER.size])
    answer = EXPECTED.answer(frame[ANSWER.size : ANSWER.size + header], body)
    return decoded(EXPECTED.picture(answer, bytearray(frame[ANSWER.size + header :])))


@settings(deadline=None)  # what takes time is to draw it
@given(pictures())
def test_a_picture_comes_through_as_it_was(picture: DecodedPicture) -> None:
    """
    Every view, statistic and fact, of every frame, in order; and none of it can be written to.
    """
    found = read(answered(picture))

    assert same(found, picture)
    assert not any(view.flags.writeable for view in (found.pixels, *found.native))


@given(st.binary(min_size=ANSWER.size, max_size=ANSWER.size))
def test_a_prefix_is_bounded(prefix: bytes) -> None:
    """
    Sixteen bytes of any kind announce at most as many bytes of header as an answer may have.
    """
    try:
        header, _ = lengths_of(prefix)
    except Garbled:
        return
    assert header <= HEADER_LIMIT_BYTES


@given(st.binary(max_size=300) | anything.map(lambda value: json.dumps(value).encode()), st.integers(0, 1 << 62))
def test_no_other_header_is_an_answer(header: bytes, body: int) -> None:
    """
    Bytes and JSON of any kind are refused, and not by any other exception.
    """
    with pytest.raises(Garbled):
        EXPECTED.answer(header, body)
    with pytest.raises(Garbled):
        hello_of(header)


@given(
    st.sampled_from(("facts", "looks", "failure", "fault", "exhausted")),
    anything,
    st.sampled_from(("sha256", "byte_length", "format", "width", "height", "further")),
)
def test_a_header_with_another_part_is_an_answer_only_if_it_fits(part: str, value: object, fact: str) -> None:
    """
    Whatever stands in place of one part of an honest header, or of one fact: what is believed has the promised shape.
    """
    frame = answered(DecodedPicture(np.zeros((SIZE, SIZE, 3), np.uint8), FACTS, (), (0.0,) * 5))
    length, body = lengths_of(frame[: ANSWER.size])
    header = json.loads(frame[ANSWER.size : ANSWER.size + length])
    for changed in ({**header, part: value}, {**header, "facts": {**header["facts"], fact: value}}):
        try:
            answer = EXPECTED.answer(json.dumps(changed).encode(), body)
        except Garbled:
            continue

        found = decoded(EXPECTED.picture(answer, bytearray(frame[ANSWER.size + length :])))
        assert (found.facts.sha256, found.facts.byte_length) == (FACTS.sha256, FACTS.byte_length)
        assert found.pixels.shape == (SIZE, SIZE, 3)
        assert 1 <= (found.facts.width or 0) * (found.facts.height or 0) <= SETUP.limits.max_pixels


@given(
    st.integers(1, 256),
    st.booleans(),
    st.none() | st.text(max_size=20),
    st.lists(st.sampled_from(("PNG", "JPEG")), max_size=2),
)
def test_a_setup_comes_through_as_it_was(pictures: int, hashed: bool, anchors: str | None, formats: list[str]) -> None:
    """
    A child decodes exactly as it is told.
    """
    setup = replace(
        SETUP,
        pictures=pictures,
        perceptual_hash=hashed,
        trust_anchors_pem=anchors,
        limits=DecodeLimits(formats=tuple(formats)),
    )

    assert Setup.from_json(setup.to_json()) == setup
