"""
Images within the event.
"""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.uploaded import InlineRef
from worker.adapters.inline_store import InlineStore
from worker.errors import UploadFailed


@given(st.binary(min_size=1, max_size=300))
def test_base64_is_read(data: bytes) -> None:
    """
    What any client encodes as base64 comes back.
    """
    text = base64.b64encode(data).decode()

    assert InlineStore().read(InlineRef(kind="inline", base64=text)) == data


@pytest.mark.parametrize(
    "text",
    [
        "AAA",
        "AAAA=",
        "AAAA====",
        "AA==AAAA",
        "AAA=AAA=",
        "AA\nAA",
        " AAAA",
        "AA-_",
        "====",
        "=",
        "data:image/png;base64,AAAA",
        "ÄÖÜ=",
        "A",
    ],
)
def test_what_is_no_strict_base64_is_refused(text: str) -> None:
    """
    Nothing is guessed: missing or excess padding, white space, other alphabets and data URLs are errors of the event.
    """
    with pytest.raises(UploadFailed) as failed:
        InlineStore().read(InlineRef(kind="inline", base64=text))

    assert failed.value.code is ErrorCode.EVENT_INVALID
