"""
Whatever a web server sends, a fetch ends with bytes or with an ``UploadFailed``: nothing else reaches the worker.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.uploaded import HttpsRef
from tests.scripted_web import Answer, ScriptedWeb, scripted_web
from worker.adapters.guarded_dial import Dialer
from worker.adapters.https_store import HttpsStore
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings

LIMIT_BYTES = 2048
NEVER = 10**9
"""So many failures in a row: no host is left alone here, for each answer is to be read."""

STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 302 Found", b"HTTP/1.1 999", b"HTTP/9.9 x", b""]
)
HEADERS = st.sampled_from(
    [
        b"Content-Length: 3",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 3, 4",
        b"Content-Length: \xb2",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Encoding: gzip",
        b"Location: https://images.test/next",
        b"Location: //",
        b"Location: http://[::1",
        b"Location: \xff\xfe\x00",
        b"Location: http://\xe4\xf6.test:99999/",
        b"Connection: close",
        b"no colon",
        b": no name",
        b" folded",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=64), st.sampled_from([b"3\r\nabc\r\n0\r\n\r\n", b"fffffffffffffffff\r\n", b"abc", b"-3\r\nabc"])
)
ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda status, headers, body: b"\r\n".join([status, *headers, b"", body]),
        STATUS_LINES,
        st.lists(HEADERS, max_size=4),
        BODIES,
    ),
)


@pytest.fixture(scope="module")
def web() -> Iterator[ScriptedWeb]:
    """
    A plain web server.
    """
    with scripted_web() as server:
        yield server


@pytest.fixture(scope="module")
def store() -> HttpsStore:
    """
    A store that takes the loopback for the Internet, and every name to be there.
    """
    limits = FetchSettings(
        allow_http=True,
        max_image_bytes=LIMIT_BYTES,
        connect_timeout_s=1,
        read_timeout_s=1,
        total_timeout_s=2,
        breaker_failures=NEVER,
    )
    return HttpsStore(limits, dialer=Dialer(resolve=lambda *_: ["127.0.0.1"], allowed=lambda _: True))


@pytest.fixture(scope="module")
def nowhere() -> HttpsStore:
    """
    A store for which no name has an address.
    """
    return HttpsStore(FetchSettings(breaker_failures=NEVER), dialer=Dialer(resolve=lambda *_: []))


def outcome(store: HttpsStore, url: str) -> bytes | ErrorCode:
    """
    The bytes, or why there are none.
    """
    try:
        return store.read(HttpsRef(kind="https", url=url))
    except UploadFailed as failed:
        return failed.code


@settings(max_examples=150, deadline=None)
@given(sent=ANSWERS)
def test_every_answer_ends_in_bytes_or_in_a_failure(web: ScriptedWeb, store: HttpsStore, sent: bytes) -> None:
    """
    Noise, contradictions and lies are failures of this one upload, and no lie is longer than the limit.
    """
    web.routes["/any"] = Answer(lambda: [sent], keeps_open=False)
    found = outcome(store, web.url("/any"))

    assert isinstance(found, ErrorCode) or len(found) <= LIMIT_BYTES


@settings(deadline=None)
@given(rest=st.text(max_size=60))
def test_every_address_ends_in_a_failure_or_at_a_host(nowhere: HttpsStore, rest: str) -> None:
    """
    Whatever follows the scheme in an event's address: malformed, refused, or a host that has no address here.
    """
    found = outcome(nowhere, f"https://{rest}")

    assert found in {ErrorCode.EVENT_INVALID, ErrorCode.REF_FORBIDDEN, ErrorCode.FETCH_UPSTREAM}
