"""
Reading over https: what is asked, what each answer means, and whom we trust.

Addresses and redirects are tested in ``test_https_addresses.py``, sizes and times in ``test_https_limits.py``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from tests.https_rig import IMAGE, SECRET, authority, failure_of, local_only, ref, settings_trusting
from tests.scripted_web import HOST, Answer, ScriptedWeb, answer, scripted_web, tls_for
from worker.adapters.https_store import HttpsStore
from worker.errors import CannotStart
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


def test_the_body_comes_as_it_is(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    The bytes of the body come back unchanged, and the query reaches the server.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE, Content_Type="text/html")

    read = store.read(ref(web.url(f"/cat.jpg?sig={SECRET}#fragment")))

    assert read == IMAGE
    assert web.asked[0].startswith(f"GET /cat.jpg?sig={SECRET} HTTP/1.1\r\n")


def test_bytes_are_asked_for_as_they_are(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    No compression is offered, the host header has the name, and no credentials are sent.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)
    store.read(ref(web.url("/cat.jpg")))
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in web.asked[0].splitlines()[1:]}

    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == f"{HOST}:{web.port}"
    assert headers["user-agent"].startswith("touchstone/")
    assert headers.keys().isdisjoint({"authorization", "cookie", "referer"})


def test_proxies_of_the_environment_are_not_used(
    store: HttpsStore, web: ScriptedWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A proxy variable does not lead the fetch elsewhere.
    """
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert store.read(ref(web.url("/cat.jpg"))) == IMAGE


def test_connections_are_kept(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    Two reads from one host need one connection.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert [store.read(ref(web.url("/cat.jpg"))) for _ in range(2)] == [IMAGE, IMAGE]
    assert web.connections == 1


def test_a_kept_connection_that_the_server_closed_is_no_failure(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    When the server hangs up on a kept connection instead of answering, the read goes on over a new one.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)
    store.read(ref(web.url("/cat.jpg")))
    hang_ups = iter([b""])

    def hang_up_once() -> Iterator[bytes]:
        if next(hang_ups, None) is None:
            yield from answer(200, IMAGE).parts()

    web.routes["/cat.jpg"] = Answer(hang_up_once, keeps_open=False)

    assert store.read(ref(web.url("/cat.jpg"))) == IMAGE
    assert web.connections == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ErrorCode.FETCH_DENIED),
        (401, ErrorCode.FETCH_DENIED),
        (403, ErrorCode.FETCH_DENIED),
        (404, ErrorCode.FETCH_NOT_FOUND),
        (408, ErrorCode.FETCH_UPSTREAM),
        (410, ErrorCode.FETCH_NOT_FOUND),
        (418, ErrorCode.FETCH_DENIED),
        (425, ErrorCode.FETCH_UPSTREAM),
        (429, ErrorCode.FETCH_UPSTREAM),
        (451, ErrorCode.FETCH_DENIED),
        (500, ErrorCode.FETCH_UPSTREAM),
        (503, ErrorCode.FETCH_UPSTREAM),
        (206, ErrorCode.FETCH_UPSTREAM),
        (300, ErrorCode.FETCH_REDIRECT),
        (304, ErrorCode.FETCH_REDIRECT),
    ],
)
def test_each_status_has_its_code(store: HttpsStore, web: ScriptedWeb, status: int, code: ErrorCode) -> None:
    """
    What the server says becomes a stable code, and the status itself is kept.
    """
    web.routes["/cat.jpg"] = answer(status, b"sorry")
    failed = failure_of(store, web.url("/cat.jpg"))

    assert (failed.code, failed.http_status) == (code, status)


@pytest.mark.parametrize("status", [204, 205])
def test_an_answer_without_a_body_is_empty(store: HttpsStore, web: ScriptedWeb, status: int) -> None:
    """
    No content reads as no bytes; what that means is for the fetch stage to say.
    """
    web.routes["/cat.jpg"] = answer(status)

    assert store.read(ref(web.url("/cat.jpg"))) == b""


@pytest.mark.parametrize(
    "encoding",
    [
        *("GZip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "snappy", "lz4"),
        *(
            "gzip, gzip",
            "gzip,identity",
            "identity, br",
            "br, gzip",
            ",gzip",
            "gzip;q=1",
            "aws-chunked,gzip",
            "utf-8, BR",
        ),
    ],
)
def test_compressed_bytes_are_refused(store: HttpsStore, web: ScriptedWeb, encoding: str) -> None:
    """
    A body in a compressing coding, which was not asked for, alone or in a list, is not taken for the image.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE, Content_Encoding=encoding)
    failed = failure_of(store, web.url("/cat.jpg"))

    assert (failed.code, failed.http_status) == (ErrorCode.FETCH_UPSTREAM, 200)
    assert "although asked for the bytes as they are" in failed.detail


@pytest.mark.parametrize(
    "encoding",
    [
        *("", "identity", "Identity", "identity, identity", "identity;q=1"),
        *("aws-chunked", "utf-8", "UTF-8", "none", "binary", "aws-chunked,identity", "8bit", "\xe4"),
    ],
)
def test_bytes_as_they_are_may_be_called_anything(store: HttpsStore, web: ScriptedWeb, encoding: str) -> None:
    """
    ``identity`` is what was asked for; honest hosts send the same bytes under other words.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE, Content_Encoding=encoding)

    assert store.read(ref(web.url("/cat.jpg"))) == IMAGE


def test_plain_http_is_an_option(settings: FetchSettings) -> None:
    """
    Plain http is refused, unless the configuration allows it.
    """
    refusing = HttpsStore(settings, dialer=local_only())
    allowing = HttpsStore(settings.model_copy(update={"allow_http": True}), dialer=local_only())
    with scripted_web() as plain:
        plain.routes["/cat.jpg"] = answer(200, IMAGE)
        failed = failure_of(refusing, plain.url("/cat.jpg"))
        read = allowing.read(ref(plain.url("/cat.jpg")))

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert read == IMAGE


@pytest.mark.parametrize(
    ("names", "trusted", "expected"),
    [(["elsewhere.test"], True, "mismatch"), ([HOST], False, "certificate")],
    ids=["other name", "unknown authority"],
)
def test_certificates_are_verified(settings: FetchSettings, names: list[str], trusted: bool, expected: str) -> None:
    """
    A certificate for another name, or from nobody we know, ends the fetch before a request is sent.
    """
    chosen = settings if trusted else settings.model_copy(update={"ca_file": None})
    with scripted_web(tls_for(authority(), *names)) as web:
        web.routes["/cat.jpg"] = answer(200, IMAGE)
        failed = failure_of(HttpsStore(chosen, dialer=local_only()), web.url("/cat.jpg"))

    assert failed.code is ErrorCode.FETCH_UPSTREAM
    assert expected in failed.detail
    assert web.asked == []


def test_a_missing_authority_file_stops_the_start(settings: FetchSettings, tmp_path: Path) -> None:
    """
    Without the certificates that the configuration names, no store is made.
    """
    absent = tmp_path / "absent.pem"
    with pytest.raises(CannotStart, match=r"fetch\.ca_file .*absent\.pem"):
        HttpsStore(settings.model_copy(update={"ca_file": absent}))


def test_an_authority_file_of_something_else_stops_the_start(settings: FetchSettings, tmp_path: Path) -> None:
    """
    A file that holds no certificate is named in the error.
    """
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    with pytest.raises(CannotStart, match=r"fetch\.ca_file .*noise\.pem"):
        HttpsStore(settings.model_copy(update={"ca_file": noise}))
