"""
Where an answer ends: what is cut off is no image, and what says two things of its end is none either.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from schemas.uploaded import S3Ref
from tests.https_rig import IMAGE, authority, failure_of, local_only, ref, settings_trusting
from tests.s3_rig import failure_of as s3_failure_of
from tests.scripted_web import HOST, Answer, ScriptedWeb, answer, scripted_web, tls_for
from worker.adapters.https_store import HttpsStore
from worker.adapters.s3_store import S3Store
from worker.settings.images import FetchSettings, S3Profile

OK = b"HTTP/1.1 200 OK\r\n"
OTHER = "other.test"
UNFRAMED = OK + b"\r\n" + IMAGE
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = f"{len(IMAGE):x}\r\n".encode() + IMAGE + b"\r\n"


@pytest.fixture
def names() -> list[str | None]:
    """
    The names that clients have sent before their TLS began (SNI).
    """
    return []


@pytest.fixture
def web(names: list[str | None]) -> Iterator[ScriptedWeb]:
    """
    An https server with a certificate for two names and an address.
    """

    def heard(_socket: ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        names.append(name)

    tls = tls_for(authority(), HOST, OTHER, "127.0.0.1")
    tls.sni_callback = heard  # type: ignore[assignment]  # the stubs want a socket that wraps an SSLObject as well
    with scripted_web(tls) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> FetchSettings:
    """
    Short times, a small limit, and our own authority.
    """
    return settings_trusting(tmp_path / "ca.pem")


@pytest.fixture
def store(settings: FetchSettings) -> HttpsStore:
    """
    A store that finds every host at 127.0.0.1.
    """
    return HttpsStore(settings, dialer=local_only())


def test_a_body_that_its_end_alone_ends_is_read(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    Without a length and without chunks, where TLS says that this is the end.
    """
    web.routes["/cat.jpg"] = Answer(lambda: [UNFRAMED], keeps_open=False, ends="notified")

    assert store.read(ref(web.url("/cat.jpg"))) == IMAGE


@pytest.mark.parametrize("ends", ["closed", "half_closed", "reset"])
@pytest.mark.parametrize("cut", [UNFRAMED, UNFRAMED[:-1], CHUNKED + CHUNK, CHUNKED + CHUNK + b"0\r\n"])
def test_a_body_that_is_cut_off_is_no_image(store: HttpsStore, web: ScriptedWeb, cut: bytes, ends: str) -> None:
    """
    An end that TLS does not vouch for may be anybody's, also where as many bytes came as there are.
    """
    web.routes["/cut"] = Answer(lambda: [cut], keeps_open=False, ends=ends)  # type: ignore[arg-type]  # one of them
    failed = failure_of(store, web.url("/cut"))

    assert (failed.code, failed.http_status) == (ErrorCode.FETCH_UPSTREAM, 200)
    assert ends == "reset" or "cut off" in failed.detail


def test_a_head_that_is_cut_off_is_asked_for_once_more(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    As after any connection that ends before it answers, and not for ever.
    """
    web.routes["/cut"] = Answer(lambda: [OK], keeps_open=False)
    failed = failure_of(store, web.url("/cut"))

    assert (failed.code, failed.http_status) == (ErrorCode.FETCH_UPSTREAM, None)
    assert "cut off" in failed.detail
    assert len(web.asked) == 2


@pytest.mark.parametrize(
    "whole",
    [OK + f"Content-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE, CHUNKED + CHUNK + b"0\r\n\r\n"],
    ids=["length", "chunks"],
)
def test_a_body_that_says_where_it_ends_needs_no_word_of_tls(store: HttpsStore, web: ScriptedWeb, whole: bytes) -> None:
    """
    It is whole, however rudely the server hangs up; and the next image is read over another connection.
    """
    web.routes["/cat.jpg"] = Answer(lambda: [whole], keeps_open=False)
    read = [store.read(ref(web.url("/cat.jpg"))) for _ in range(3)]

    assert [IMAGE] * 3 == read


def test_an_object_that_is_cut_off_is_no_image(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    Of an S3 store neither.
    """
    media = S3Profile.model_validate(
        {
            "endpoint_url": web.url("", host="127.0.0.1"),
            "region": "eu-central-1",
            "access_key_id": "key-of-a-test",
            "secret_access_key": "secret-of-a-test",
            "buckets": ("uploads",),
        }
    )
    store = S3Store(settings.model_copy(update={"s3": {"media": media}}))
    uploads = S3Ref(kind="s3", bucket="uploads", key="cat.jpg", profile="media")
    web.routes["/uploads/cat.jpg"] = Answer(lambda: [UNFRAMED], keeps_open=False, ends="notified")
    read = store.read(uploads)
    web.routes["/uploads/cat.jpg"] = Answer(lambda: [UNFRAMED[:-1]], keeps_open=False)
    failed = s3_failure_of(store, uploads)

    assert IMAGE == read
    assert ErrorCode.FETCH_UPSTREAM is failed.code


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length: 5\r\nContent-Length: 10240",
        "Content-Length: 5, 6",
        "Content-Length: 5, 05",
        "Content-Length: 5,",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: -5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
    ],
)
def test_an_end_that_can_be_read_in_two_ways_is_none(store: HttpsStore, web: ScriptedWeb, header: str) -> None:
    """
    Where one reader would stop here and another there, nothing is read, and the connection is not used again.
    """
    odd = OK + header.encode() + b"\r\n\r\n" + IMAGE
    web.routes["/odd"] = Answer(lambda: [odd], keeps_open=False, ends="notified")
    failed = failure_of(store, web.url("/odd"))
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert ErrorCode.FETCH_UPSTREAM is failed.code
    assert IMAGE == store.read(ref(web.url("/cat.jpg")))


@pytest.mark.parametrize(
    "header", ["Content-Length: {0} ", "Content-Length: {0}, {0}", "Content-Length: {0}\r\nContent-Length: {0}"]
)
def test_a_length_that_is_told_twice_is_told_once(store: HttpsStore, web: ScriptedWeb, header: str) -> None:
    """
    Equal lengths are legal, and so is a space: the body ends there, though the host keeps the connection open.
    """
    whole = OK + header.format(len(IMAGE)).encode() + b"\r\n\r\n" + IMAGE
    web.routes["/cat.jpg"] = Answer(lambda: [whole])
    read = [store.read(ref(web.url("/cat.jpg"))) for _ in range(2)]
    web.routes["/cut"] = Answer(lambda: [whole[:-1]], keeps_open=False)
    failed = failure_of(store, web.url("/cut"))

    assert [IMAGE] * 2 == read
    assert (ErrorCode.FETCH_UPSTREAM, 200) == (failed.code, failed.http_status)


def test_tls_is_asked_for_the_host_by_its_name(store: HttpsStore, web: ScriptedWeb, names: list[str | None]) -> None:
    """
    Although the connection goes to the address that was checked, the server hears the name that the reference has.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)
    web.routes["/moved"] = answer(302, Location=web.url("/cat.jpg", host=OTHER))
    for url in (web.url("/moved"), web.url("/cat.jpg", host=f"{HOST}."), web.url("/cat.jpg", host="127.0.0.1")):
        store.read(ref(url))

    assert [HOST, OTHER, HOST, None] == names
