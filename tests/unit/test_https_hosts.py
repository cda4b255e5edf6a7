"""
Reading over https, host by host: which are allowed, who gets credentials, who is asked again and when.
"""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from tests.https_rig import IMAGE, SECRET, authority, failure_of, local_only, ref, settings_trusting
from tests.scripted_web import HOST, Answer, ScriptedWeb, answer, scripted_web, tls_for
from tests.servers import eventually
from worker.adapters.https_store import Hop, HttpsStore
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings

OTHER = "other.test"


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    An https server with a certificate for two names and all names below a third.
    """
    with scripted_web(tls_for(authority(), HOST, OTHER, "*.cdn.test", "cdn.test")) as server:
        server.routes["/cat.jpg"] = answer(200, IMAGE)
        yield server


@pytest.fixture
def trusting(tmp_path: Path) -> FetchSettings:
    """
    Short times, a small limit, and our own authority.
    """
    return settings_trusting(tmp_path / "ca.pem")


def profile(*hosts: str, web: ScriptedWeb, **sent: str) -> dict[str, object]:
    """
    A profile for these hosts at the server's port.
    """
    return {"hosts": [f"{host}:{web.port}" for host in hosts], **sent}


def token(web: ScriptedWeb) -> dict[str, object]:
    """
    Settings with a secret for the server's hosts, but for ``other.test``.
    """
    return {"http": {"media": profile(HOST, "*.cdn.test", web=web, bearer_token=SECRET)}}


def store_with(trusting: FetchSettings, **changes: object) -> HttpsStore:
    """
    A store for which every host is at 127.0.0.1.
    """
    settings = FetchSettings.model_validate(trusting.model_dump() | changes)
    return HttpsStore(settings, dialer=local_only())


def headers_asked(web: ScriptedWeb) -> list[dict[str, str]]:
    """
    The headers of every request, by their names in small letters.
    """
    heads = [[line.partition(":") for line in head.splitlines()[1:]] for head in web.asked]
    return [{name.lower(): value.strip() for name, _, value in head} for head in heads]


def test_hosts_that_are_not_allowed_are_not_asked(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    With a list only its hosts are, and those below its wildcards.
    """
    store = store_with(trusting, allowed_hosts=[HOST, "*.cdn.test"])
    read = [store.read(ref(web.url("/cat.jpg", host=host))) for host in (HOST, "IMAGES.test", "a.cdn.test")]
    refused = [failure_of(store, web.url("/cat.jpg", host=host)) for host in (OTHER, "cdn.test", f"{HOST}.evil.test")]

    assert [IMAGE] * 3 == read
    assert [ErrorCode.REF_FORBIDDEN] * 3 == [failed.code for failed in refused]
    assert "fetch.allowed_hosts" in refused[0].detail
    assert len(web.asked) == 3


def test_no_redirect_leads_off_the_list(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    Each hop is looked up like the first.
    """
    web.routes["/moved"] = answer(302, Location=web.url("/cat.jpg", host=OTHER))
    failed = failure_of(store_with(trusting, allowed_hosts=[HOST]), web.url("/moved"))

    assert ErrorCode.REF_FORBIDDEN is failed.code
    assert len(web.asked) == 1


def test_credentials_go_to_their_hosts(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    A header, a bearer token, or both, to the hosts of their profile and to nobody else.
    """
    media = profile(HOST, web=web, header="X-Api-Key", value=SECRET, bearer_token=f"{SECRET}-too")
    others = profile(OTHER, web=web, header="X-Api-Key", value="for-the-other")
    store = store_with(trusting, http={"media": media, "others": others})
    for host in (HOST, OTHER, "a.cdn.test"):
        store.read(ref(web.url("/cat.jpg", host=host)))
    first, second, third = headers_asked(web)

    assert (SECRET, f"Bearer {SECRET}-too") == (first["x-api-key"], first["authorization"])
    assert "for-the-other" == second["x-api-key"]
    assert {"authorization"}.isdisjoint(second)
    assert {"authorization", "x-api-key"}.isdisjoint(third)


def test_credentials_follow_within_their_host(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    A redirect to another path of the same host is still that host.
    """
    web.routes["/moved"] = answer(302, Location="/cat.jpg")
    store_with(trusting, **token(web)).read(ref(web.url("/moved")))

    assert [f"Bearer {SECRET}"] * 2 == [asked["authorization"] for asked in headers_asked(web)]


@pytest.mark.parametrize("elsewhere", [OTHER, "a.cdn.test"], ids=["another's", "one of the same profile"])
def test_credentials_are_dropped_on_the_way_to_another_host(
    trusting: FetchSettings, web: ScriptedWeb, elsewhere: str
) -> None:
    """
    And for good: who is sent back from there was sent by anybody.
    """
    web.routes["/moved"] = answer(302, Location=web.url("/back", host=elsewhere))
    web.routes["/back"] = answer(302, Location=web.url("/cat.jpg"))
    read = store_with(trusting, **token(web)).read(ref(web.url("/moved")))

    assert IMAGE == read
    assert [True, False, False] == ["authorization" in asked for asked in headers_asked(web)]


def test_nobody_is_redirected_to_credentials(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    An uploader's host that redirects to one with a profile does not borrow its secret.
    """
    web.routes["/moved"] = answer(302, Location=web.url("/cat.jpg"))
    store_with(trusting, **token(web)).read(ref(web.url("/moved", host=OTHER)))

    assert ["authorization" in asked for asked in headers_asked(web)] == [False, False]


def test_another_port_is_another_host(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    Whoever runs a server on another port of that host gets nothing by a redirect.
    """
    with scripted_web(tls_for(authority(), HOST)) as beside:
        beside.routes["/cat.jpg"] = answer(200, IMAGE)
        web.routes["/moved"] = answer(302, Location=beside.url("/cat.jpg"))
        store_with(trusting, **token(web)).read(ref(web.url("/moved")))

    assert "authorization" in headers_asked(web)[0]
    assert "authorization" not in headers_asked(beside)[0]


@pytest.mark.parametrize("named", [HOST, f"{HOST}:443", f"{HOST}:444"])
def test_no_port_gets_credentials_that_is_not_named(trusting: FetchSettings, web: ScriptedWeb, named: str) -> None:
    """
    A profile that names no port means 443: an event that names another port of that host borrows no secret.
    """
    store_with(trusting, http={"media": {"hosts": [named], "bearer_token": SECRET}}).read(ref(web.url("/cat.jpg")))

    assert {"authorization"}.isdisjoint(headers_asked(web)[0])


def test_credentials_never_go_in_the_clear(trusting: FetchSettings) -> None:
    """
    Over plain http, where it is allowed, nothing is sent.
    """
    with scripted_web() as plain:
        plain.routes["/cat.jpg"] = answer(200, IMAGE)
        store_with(trusting, allow_http=True, **token(plain)).read(ref(plain.url("/cat.jpg")))

    assert "authorization" not in headers_asked(plain)[0]


@pytest.mark.parametrize("path", ["/denied", "/noise", "/elsewhere", "/slow", "/echo"])
def test_no_credentials_are_ever_told(
    trusting: FetchSettings, web: ScriptedWeb, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Neither the failure, with all that led to it, nor any log holds them.
    """
    caplog.set_level(logging.DEBUG)
    web.routes |= {
        "/denied": answer(403),
        "/noise": Answer(lambda: [b"noise\r\n\r\n"], keeps_open=False),
        "/elsewhere": answer(302, Location="https://10.0.0.1/"),
        "/slow": web.silent(),
        "/echo": answer(200, IMAGE, Content_Encoding=f"gzip, Bearer {SECRET}"),
    }
    times = {"read_timeout_s": 0.3} if path == "/slow" else {}
    store = store_with(trusting, **times, **token(web))
    failed: BaseException | None = failure_of(store, web.url(path))
    told = caplog.text
    while failed is not None:
        told += repr(failed) + repr(vars(failed))
        failed = failed.__cause__ or failed.__context__

    assert eventually(lambda: any(SECRET in head for head in web.asked))
    assert SECRET not in told


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (429, "17", 17.0),
        (503, "17", 17.0),
        (503, "999999", 3600.0),
        (503, "soon", None),
        (500, "17", None),
        (404, "17", None),
    ],
)
def test_who_says_when_is_asked_then(
    trusting: FetchSettings, web: ScriptedWeb, status: int, header: str, expected: float | None
) -> None:
    """
    Retry-After of a 429 or 503 is told with the failure, at most an hour.
    """
    web.routes["/later"] = answer(status, Retry_After=header)
    failed = failure_of(store_with(trusting), web.url("/later"))

    assert (status, expected) == (failed.http_status, failed.retry_after_s)


def test_a_date_is_a_wait_from_now(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    Retry-After may be a date.
    """
    then = datetime.now(UTC) + timedelta(seconds=120)
    web.routes["/later"] = answer(503, Retry_After=format_datetime(then, usegmt=True))
    failed = failure_of(store_with(trusting), web.url("/later"))

    assert failed.retry_after_s is not None
    assert 100 < failed.retry_after_s <= 120


def test_a_host_that_is_down_is_left_alone(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    After failures in a row it is not asked any more, while another on the same server is.
    """
    web.routes["/broken"] = answer(503)
    store = store_with(trusting, breaker_failures=3)
    codes = [failure_of(store, web.url("/broken")).code for _ in range(5)]
    other = store.read(ref(web.url("/cat.jpg", host=OTHER)))

    assert [ErrorCode.FETCH_UPSTREAM] * 3 + [ErrorCode.FETCH_HOST_DOWN] * 2 == codes
    assert IMAGE == other
    assert len(web.asked) == 4


@pytest.mark.parametrize(
    "bad",
    [
        answer(500),
        answer(200, IMAGE, Content_Encoding="gzip"),
        answer(200, IMAGE, keeps_open=False, Content_Length=str(len(IMAGE) + 1)),
        Answer(lambda: [b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE], keeps_open=False, ends="half_closed"),
    ],
    ids=["500", "encoded", "shorter than it says", "cut off"],
)
def test_a_path_that_fails_shuts_no_host(trusting: FetchSettings, web: ScriptedWeb, bad: Answer) -> None:
    """
    A host that many share answers for its other images, whatever one of its paths answers.
    """
    web.routes["/bad"] = bad
    store = store_with(trusting, breaker_failures=3)
    codes = [failure_of(store, web.url("/bad")).code for _ in range(6)]

    assert [ErrorCode.FETCH_UPSTREAM] * 6 == codes
    assert IMAGE == store.read(ref(web.url("/cat.jpg")))


def test_images_that_are_not_there_condemn_no_host(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    404, 403 and a 429 that says when come from a host that is alive.
    """
    web.routes |= {"/denied": answer(403), "/later": answer(429, Retry_After="5")}
    store = store_with(trusting, breaker_failures=1)
    codes = [failure_of(store, web.url(path)).code for path in ("/none", "/denied", "/later") * 2]

    assert [ErrorCode.FETCH_NOT_FOUND, ErrorCode.FETCH_DENIED, ErrorCode.FETCH_UPSTREAM] * 2 == codes
    assert IMAGE == store.read(ref(web.url("/cat.jpg")))


def test_one_slow_host_does_not_take_all_threads(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    With three threads and twenty uploads of a host that hangs before it, another's upload is fetched meanwhile.
    """
    hanging = threading.Event()
    asked = threading.Semaphore(0)

    def hang() -> Iterator[bytes]:
        asked.release()
        hanging.wait(90)
        yield from answer(200, IMAGE).parts()

    web.routes["/slow"] = Answer(hang)
    times = {"read_timeout_s": 90, "total_timeout_s": 100, "host_wait_s": 0.1}
    store = store_with(trusting, threads=3, per_host_connections=2, **times)
    ends: list[bytes | ErrorCode] = []

    def fetch(url: str) -> None:
        try:
            ends.append(store.read(ref(url)))
        except UploadFailed as failed:
            ends.append(failed.code)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            pool.submit(fetch, web.url("/slow", host=OTHER))
        assert all(asked.acquire(timeout=60) for _ in range(2))
        pool.submit(fetch, web.url("/cat.jpg")).result(60)
        before = list(ends)
        hanging.set()

    assert [ErrorCode.FETCH_HOST_DOWN] * 18 + [IMAGE] == before
    assert [IMAGE] * 2 == ends[19:]


def test_every_answer_can_be_watched(trusting: FetchSettings, web: ScriptedWeb) -> None:
    """
    Host, status, and the address that was connected to; none for a connection that was kept.
    """
    web.routes["/moved"] = answer(302, Location="/cat.jpg?signature=x")
    hops: list[Hop] = []
    store = HttpsStore(trusting, dialer=local_only(), on_hop=hops.append)
    for path in ("/moved", "/cat.jpg"):
        store.read(ref(web.url(path)))
    place = f"https://{HOST}:{web.port}"

    assert [Hop(place, "127.0.0.1", 302), Hop(place, "127.0.0.1", 200), Hop(place, None, 200)] == hops
