"""
The uploads of a stress run: events of the contract over pictures whose bytes differ and whose pixels do not.
"""

import io
import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.uploaded import ImageUploadedV1, InlineRef
from tests.bank_builders import a_picture
from worker.bench.corpus import KINDS, picture
from worker.bench.stress_uploads import Commented, inline_uploads, numbers_of_bytes
from worker.cli.stress import SIZES

JPEG = a_picture(1, size=(64, 64), name="JPEG")


def pixels(data: bytes) -> bytes:
    """
    What a JPEG shows.
    """
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


@pytest.mark.parametrize("jpeg", [JPEG, JPEG[:2] + JPEG[20:]], ids=["with JFIF", "without"])
@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "stress-0123abcd-17"])
def test_a_comment_changes_bytes_and_no_pixel(jpeg: bytes, text: str) -> None:
    """
    Whatever its length, and wherever the first marker ends: also in base64, of which only the beginning is new.
    """
    made = Commented(jpeg)

    assert jpeg != made.with_comment(text)
    assert pixels(jpeg) == pixels(made.with_comment(text))
    assert made.with_comment(text) == b64decode(made.base64_with_comment(text), validate=True)


def test_inline_events_are_uploads_of_the_contract() -> None:
    """
    Each validates, carries its picture, and is known by the run and its number.
    """
    event_of = inline_uploads("stress-1", [JPEG], [0, 1, 0])
    events = [event_of(number) for number in range(3)]
    uploads = [ImageUploadedV1.model_validate_json(event.value) for event in events]
    data = []
    for upload in uploads:
        assert isinstance(upload.image.ref, InlineRef)
        data.append(b64decode(upload.image.ref.base64))

    assert ["stress-1-0", "stress-1-1", "stress-1-2"] == [upload.content_id for upload in uploads]
    assert [upload.content_id for upload in uploads] == [dict(one.headers)["ce_id"].decode() for one in events]
    assert data[0] == data[2] != data[1]
    assert {"content_id", "image"} == set(json.loads(events[0].value))


@given(count=st.integers(1, 500), repeated=st.floats(0, 0.99))
def test_the_share_of_repeated_bytes_is_as_asked(count: int, repeated: float) -> None:
    """
    Each upload shows its own bytes or some that were shown before; of those as many as asked, but for the very first.
    """
    shown = numbers_of_bytes(count, repeated)
    again = sum(number != one for number, one in enumerate(shown))

    assert all(one <= number and shown[one] == one for number, one in enumerate(shown))
    assert abs(again - count * repeated) <= 1 + repeated
    assert shown == numbers_of_bytes(count, repeated)


def test_the_command_offers_the_sizes_that_there_are() -> None:
    """
    Its list stands in the command, which imports no picture library for --help; and those that fit travel inline.
    """
    assert tuple(KINDS) == SIZES
    inline_uploads("stress-1", [picture(0, KINDS["1mp"])], [0])
