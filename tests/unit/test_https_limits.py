"""
Reading over https: how much is read, how long it may take, and what is told of a failure.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from tests.https_rig import IMAGE, LIMIT_BYTES, SECRET, authority, failure_of, local_only, ref, settings_trusting
from tests.scripted_web import HOST, Answer, ScriptedWeb, answer, scripted_web, tls_for
from tests.servers import eventually
from worker.adapters.https_store import HttpsStore
from worker.settings.images import FetchSettings


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    An https server whose certificate is for ``images.test`` alone.
    """
    with scripted_web(tls_for(authority(), HOST)) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> FetchSettings:
    """
    Short times, a small limit, and our own authority.
    """
    return settings_trusting(tmp_path / "ca.pem")


@pytest.fixture
def store(settings: FetchSettings) -> Iterator[HttpsStore]:
    """
    A store that finds every host at 127.0.0.1, but for ``inside.test`` at an address that is refused.
    """
    store = HttpsStore(settings, dialer=local_only(inside_test="127.0.0.2"))
    yield store
    store.close()


def test_a_declared_length_above_the_limit_is_refused_unread(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    What says that it is too large is not read.
    """
    web.routes["/big"] = web.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", b"x")
    failed = failure_of(store, web.url("/big"))

    assert failed.code is ErrorCode.FETCH_TOO_LARGE
    assert "100001" in failed.detail


@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(4096) + b"\r\n"), (b"\r\n", bytes(4096))],
    ids=["chunked", "until it closes"],
)
def test_a_body_without_end_is_cut_off(store: HttpsStore, web: ScriptedWeb, head: bytes, piece: bytes) -> None:
    """
    Without a declared length the bytes are counted as they come.
    """
    web.routes["/endless"] = web.dripping(b"HTTP/1.1 200 OK\r\n" + head, piece * 8)
    failed = failure_of(store, web.url("/endless"))

    assert failed.code is ErrorCode.FETCH_TOO_LARGE


def test_the_limit_itself_is_allowed(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    An image of exactly the limit is read.
    """
    web.routes["/cat.jpg"] = answer(200, bytes(LIMIT_BYTES))

    assert len(store.read(ref(web.url("/cat.jpg")))) == LIMIT_BYTES


def test_a_body_that_breaks_off_is_no_image(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    Fewer bytes than declared are not passed on as the whole.
    """
    web.routes["/cut"] = answer(200, IMAGE, keeps_open=False, Content_Length=str(len(IMAGE) + 1))
    failed = failure_of(store, web.url("/cut"))

    assert failed.code is ErrorCode.FETCH_UPSTREAM


HANGING = {
    "says nothing": None,
    "drips its headers": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "drips its body": (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
    "drips its chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "drips a chunk's size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize("script", HANGING.values(), ids=HANGING.keys())
def test_a_slow_peer_holds_nobody(
    settings: FetchSettings, web: ScriptedWeb, script: tuple[bytes, bytes] | None
) -> None:
    """
    However a peer spreads its bytes, the fetch is over when its total time is.
    """
    short = settings.model_copy(update={"total_timeout_s": 0.4, "read_timeout_s": 0.3})
    web.routes["/slow"] = web.silent() if script is None else web.dripping(*script)
    started_s = time.monotonic()
    failed = failure_of(HttpsStore(short, dialer=local_only()), web.url("/slow"))

    assert failed.code is ErrorCode.FETCH_TIMEOUT
    assert time.monotonic() - started_s < 30


def test_a_peer_that_accepts_and_never_speaks_tls(settings: FetchSettings) -> None:
    """
    A handshake that does not come ends with the connect time-out.
    """
    short = settings.model_copy(update={"connect_timeout_s": 0.2, "total_timeout_s": 60})
    with scripted_web() as plain:  # it waits for a request, we for its half of the handshake
        failed = failure_of(HttpsStore(short, dialer=local_only()), plain.url("/", scheme="https"))

    assert failed.code is ErrorCode.FETCH_TIMEOUT


NO_HTTP = {
    "noise": b"\x00\xff\xfe no http at all\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "status": b"HTTP/1.1 abc OK\r\n\r\n",
}


@pytest.mark.parametrize("noise", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_the_upstreams_failure(store: HttpsStore, web: ScriptedWeb, noise: bytes) -> None:
    """
    A peer that does not keep to the protocol ends this fetch and nothing else.
    """
    web.routes["/noise"] = Answer(lambda: [noise], keeps_open=False)
    failed = failure_of(store, web.url("/noise"))

    assert failed.code is ErrorCode.FETCH_UPSTREAM


@pytest.mark.parametrize(
    "path", ["/denied", "/moved", "/loop", "/cut", "/noise", "/odd-headers", "/big", "/slow", "/inside"]
)
def test_no_query_is_ever_told(
    settings: FetchSettings, web: ScriptedWeb, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Neither the detail of a failure nor any log, at whatever level, holds a signed query or a path.
    """
    caplog.set_level(logging.DEBUG)
    inside = f"https://inside.test{path}?sig={SECRET}"
    web.routes |= {
        "/denied": answer(403),
        "/moved": answer(302, Location=f"http://{HOST}{path}?sig={SECRET}"),
        "/loop": answer(302, Location=f"{path}?sig={SECRET}"),
        "/cut": answer(200, IMAGE, keeps_open=False, Content_Length="20000"),
        "/noise": Answer(lambda: [b"noise\r\n\r\n"], keeps_open=False),
        "/odd-headers": answer(404, X="y\r\nno header at all"),
        "/big": answer(200, bytes(LIMIT_BYTES + 1)),
        "/slow": web.silent(),
        "/inside": answer(302, Location=inside),
    }
    short = settings.model_copy(update={"read_timeout_s": 0.5}) if path == "/slow" else settings
    store = HttpsStore(short, dialer=local_only(inside_test="127.0.0.2"))
    failed = failure_of(store, web.url(f"{path}?sig={SECRET}"))

    assert eventually(lambda: len(web.asked) > 0)
    assert SECRET not in failed.detail + caplog.text
    assert path not in failed.detail + caplog.text
