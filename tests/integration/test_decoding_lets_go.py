"""
The bytes of a picture that cannot be decoded are let go at once: a worker's garbage collector comes by seldom.
"""

import gc
import sys
from collections.abc import Iterator

import pytest

from schemas.errors import ErrorCode
from tests.decoding_rig import a_png, decoding
from tests.servers import eventually

FAILS_WITH = {
    b"no picture" * 999: ErrorCode.FORMAT_UNSUPPORTED,
    a_png()[:-40]: ErrorCode.DECODE_TRUNCATED,
    b"stub:exit": ErrorCode.DECODE_CRASHED,
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """
    What is in a circle stays.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("data", list(FAILS_WITH), ids=["unknown", "truncated", "child dies"])
def test_nobody_holds_the_bytes_of_what_failed(data: bytes) -> None:
    """
    Whether the process answers why, or is lost over it.
    """
    with decoding() as rig:
        rig.decode(a_png())
        before = held(data)
        code = rig.failure(data).code
        # The thread that kept the child may be about to let go of them.
        let_go = eventually(lambda: held(data) == before)

    assert FAILS_WITH[data] == code
    assert let_go


def held(data: bytes) -> int:
    """
    By how many, and by whoever asks.
    """
    return sys.getrefcount(data)
