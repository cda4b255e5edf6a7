"""
Reading from S3-compatible stores: the limits of a fetch hold there too, and so do prefixes and ``Retry-After``.
"""

import time
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest

from schemas.errors import ErrorCode
from tests.s3_rig import IMAGE, failure_of, ref, settings_for
from tests.scripted_web import Answer, ScriptedWeb, answer, scripted_web
from worker.adapters.s3_store import S3Store

OK = b"HTTP/1.1 200 OK\r\n"
PATH = "/uploads/cat.jpg"


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    A store whose every answer a test writes down.
    """
    with scripted_web() as server:
        yield server


Script = Callable[[ScriptedWeb], Answer]

SLOW: dict[str, tuple[Script, ErrorCode]] = {
    "body drips": (lambda web: web.dripping(OK + b"Content-Length: 90000\r\n\r\n", b"x"), ErrorCode.FETCH_TOO_SLOW),
    "headers drip": (lambda web: web.dripping(OK + b"X-Slow: ", b"x"), ErrorCode.FETCH_TOO_SLOW),
    "an error drips": (
        lambda web: web.dripping(b"HTTP/1.1 403 No\r\nContent-Length: 90000\r\n\r\n<Error>", b"x"),
        ErrorCode.FETCH_TOO_SLOW,
    ),
    "interim answers without end": (
        lambda _: Answer(lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), keeps_open=False),
        ErrorCode.FETCH_TOO_LARGE,
    ),
    "reset in the body": (
        lambda _: Answer(lambda: [OK + b"Content-Length: 9000\r\n\r\n" + bytes(99)], keeps_open=False, ends="reset"),
        ErrorCode.FETCH_UPSTREAM,
    ),
}


@pytest.mark.parametrize(("script", "code"), SLOW.values(), ids=SLOW.keys())
def test_a_store_that_does_its_worst_holds_nobody(web: ScriptedWeb, script: Script, code: ErrorCode) -> None:
    """
    However it spreads its bytes, over headers, errors or an object: the fetch ends with its code, within its time.
    """
    web.routes[PATH] = script(web)
    hurried = {"slow_after_s": 0.3} if code is ErrorCode.FETCH_TOO_SLOW else {"slow_after_s": 60}
    store = S3Store(settings_for(web, **hurried))
    started_s = time.monotonic()
    failed = failure_of(store, ref())

    assert code is failed.code
    assert time.monotonic() - started_s < 30


def test_an_error_without_end_is_cut_off(web: ScriptedWeb) -> None:
    """
    What a store says about a failure is no larger than an image may be.
    """
    head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 16384 + b"\r\n"

    def parts() -> Iterator[bytes]:
        yield head
        yield from repeat(chunk)

    web.routes[PATH] = Answer(parts, keeps_open=False)
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert ErrorCode.FETCH_TOO_LARGE is failed.code


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("public/cat.jpg", True),
        ("shared/cat.jpg", True),
        ("shared/cats/1.jpg", True),
        ("shared/dog.jpg", False),
        ("private/public/cat.jpg", False),
        ("Public/cat.jpg", False),
        ("/public/cat.jpg", False),
    ],
)
def test_only_keys_with_an_allowed_prefix_are_read(web: ScriptedWeb, key: str, allowed: bool) -> None:
    """
    With prefixes, a key that begins otherwise is refused unasked.
    """
    web.routes[f"/uploads/{key}"] = answer(200, IMAGE)
    store, reference = S3Store(settings_for(web)), ref(key=key, profile="public")
    if allowed:
        assert IMAGE == store.read(reference)
        return
    failed = failure_of(store, reference)

    assert ErrorCode.REF_FORBIDDEN is failed.code
    assert "fetch.s3.public.prefixes" in failed.detail
    assert 0 == web.connections


@pytest.mark.parametrize(
    ("status", "s3_code", "header", "expected"),
    [
        (503, "SlowDown", "9", 9.0),
        (429, "TooManyRequests", "9", 9.0),
        (503, "SlowDown", "later", None),
        (404, "NoSuchKey", "9", None),
        (500, "InternalError", "9", None),
    ],
)
def test_a_store_that_says_when_is_asked_then(
    web: ScriptedWeb, status: int, s3_code: str, header: str, expected: float | None
) -> None:
    """
    Retry-After is told where the store asks us to slow down.
    """
    body = f"<Error><Code>{s3_code}</Code></Error>".encode()
    web.routes[PATH] = answer(status, body, Content_Type="application/xml", Retry_After=header)
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert (status, expected) == (failed.http_status, failed.retry_after_s)


def test_a_store_that_is_down_is_left_alone(web: ScriptedWeb) -> None:
    """
    A profile has a circuit breaker like any web host; what is absent does not open it.
    """
    web.routes[PATH] = answer(503, b"<Error><Code>ServiceUnavailable</Code></Error>")
    store = S3Store(settings_for(web, breaker_failures=2))
    absent = [failure_of(store, ref(key="none.jpg")).code for _ in range(3)]
    codes = [failure_of(store, ref()).code for _ in range(3)]
    asked = len(web.asked)
    again = failure_of(store, ref())

    assert [ErrorCode.FETCH_NOT_FOUND] * 3 == absent
    assert [ErrorCode.FETCH_UPSTREAM] * 2 + [ErrorCode.FETCH_HOST_DOWN] == codes
    assert ErrorCode.FETCH_HOST_DOWN is again.code
    assert asked == len(web.asked)


def test_connections_to_a_store_are_kept(web: ScriptedWeb) -> None:
    """
    Two objects need one connection.
    """
    web.routes[PATH] = answer(200, IMAGE)
    store = S3Store(settings_for(web))
    read = [store.read(ref()) for _ in range(2)]
    store.close()

    assert [IMAGE, IMAGE] == read
    assert 1 == web.connections
