"""
Reading over https: which addresses are asked, at first and after each redirect.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from schemas.errors import ErrorCode
from tests.https_rig import IMAGE, authority, failure_of, local_only, ref, settings_trusting
from tests.scripted_web import HOST, ScriptedWeb, answer, scripted_web, tls_for
from worker.adapters.guarded_dial import Dialer
from worker.adapters.https_address import AddressRules
from worker.adapters.https_store import HttpsStore
from worker.errors import UploadFailed
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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(store: HttpsStore, web: ScriptedWeb, status: int) -> None:
    """
    A relative and then an absolute redirect lead to the image.
    """
    web.routes["/a/old"] = answer(status, Location="../moved")
    web.routes["/moved"] = answer(status, Location=web.url("/cat.jpg"))
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert store.read(ref(web.url("/a/old"))) == IMAGE


def test_redirects_end(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    One redirect more than allowed is a failure, after exactly as many requests as allowed.
    """
    web.routes["/loop"] = answer(302, Location="/loop")
    failed = failure_of(store, web.url("/loop"))

    assert failed.code is ErrorCode.FETCH_REDIRECT
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://images.test/cat.jpg", ErrorCode.REF_FORBIDDEN),
        ("https://inside.test/latest/meta-data", ErrorCode.REF_FORBIDDEN),
        ("https://user:password@images.test/", ErrorCode.REF_FORBIDDEN),
        ("https://2130706433/", ErrorCode.REF_FORBIDDEN),
        ("file:///etc/passwd", ErrorCode.REF_FORBIDDEN),
        ("ftp://images.test/cat.jpg", ErrorCode.REF_FORBIDDEN),
        ("https://[broken/", ErrorCode.FETCH_REDIRECT),
        ("\\\\inside.test\\cat.jpg", ErrorCode.FETCH_REDIRECT),
        ("/\\inside.test/cat.jpg", ErrorCode.FETCH_REDIRECT),
        ("https://images.test\r\n .inside.test/", ErrorCode.FETCH_REDIRECT),
        ("https://images.test\t.inside.test/", ErrorCode.FETCH_REDIRECT),
        ("https://images.test:0/", ErrorCode.FETCH_REDIRECT),
        ("https://./", ErrorCode.FETCH_REDIRECT),
        ("https://images.test:99999/", ErrorCode.FETCH_REDIRECT),
        ("", ErrorCode.FETCH_REDIRECT),
    ],
)
def test_redirects_lead_nowhere_else(store: HttpsStore, web: ScriptedWeb, location: str, code: ErrorCode) -> None:
    """
    Every hop is checked like the first: scheme, user name, and the addresses behind the name.
    """
    web.routes["/moved"] = answer(302, Location=location)
    failed = failure_of(store, web.url("/moved"))

    assert failed.code is code
    assert len(web.asked) == 1


def test_no_redirect_from_https_to_http(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    Even where plain http is allowed, https does not lead there.
    """
    store = HttpsStore(settings.model_copy(update={"allow_http": True}), dialer=local_only())
    web.routes["/moved"] = answer(302, Location=web.url("/cat.jpg", scheme="http"))
    failed = failure_of(store, web.url("/moved"))

    assert (failed.code, failed.http_status) == (ErrorCode.FETCH_REDIRECT, 302)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://user@images.test/cat.jpg", ErrorCode.REF_FORBIDDEN),
        ("https://user:password@images.test/cat.jpg", ErrorCode.REF_FORBIDDEN),
        ("https://0x7f000001/", ErrorCode.REF_FORBIDDEN),
        ("https://0177.0.0.1/", ErrorCode.REF_FORBIDDEN),
        ("https://127.1/", ErrorCode.REF_FORBIDDEN),
        ("https://127.0.0.1./", ErrorCode.REF_FORBIDDEN),
        ("https:///cat.jpg", ErrorCode.EVENT_INVALID),
        ("https://", ErrorCode.EVENT_INVALID),
        ("https://images.test:99999/", ErrorCode.EVENT_INVALID),
        ("https://[::1/", ErrorCode.EVENT_INVALID),
        ("https://images.test:0/", ErrorCode.EVENT_INVALID),
        ("https://./", ErrorCode.EVENT_INVALID),
        ("https://images..test/", ErrorCode.EVENT_INVALID),
        ("https://images.test../", ErrorCode.EVENT_INVALID),
        ("https://.images.test/", ErrorCode.EVENT_INVALID),
        ("https://-images.test/", ErrorCode.EVENT_INVALID),
        ("https://images,test/", ErrorCode.EVENT_INVALID),
        ("https://[2606:4700::1111%25eth0]/", ErrorCode.EVENT_INVALID),
        ("https://images.test\r\nHost: inside.test/", ErrorCode.EVENT_INVALID),
        ("https://images.test%0a/", ErrorCode.EVENT_INVALID),
        (f"https://{'a' * 64}.test/", ErrorCode.EVENT_INVALID),
        (f"https://{'a.' * 126}test/", ErrorCode.EVENT_INVALID),
    ],
)
def test_addresses_are_checked_before_anything_is_asked(store: HttpsStore, url: str, code: ErrorCode) -> None:
    """
    A user name, a host in disguise and a malformed address are refused as they are read.
    """
    failed = failure_of(store, url)

    assert failed.code is code


@pytest.mark.parametrize(
    "host", ["%31%32%37.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[0:0::0:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"]
)
def test_an_address_in_disguise_is_refused_for_what_it_is(settings: FetchSettings, host: str) -> None:
    """
    Percent signs and other spellings are undone before anything is judged, and nobody is connected to.
    """
    failed = failure_of(HttpsStore(settings), f"https://{host}:1/")

    assert failed.code is ErrorCode.REF_FORBIDDEN


@pytest.mark.parametrize("host", ["images.test.", "IMAGES.test"])
def test_one_host_in_two_spellings(store: HttpsStore, web: ScriptedWeb, host: str) -> None:
    """
    A dot at the end and capital letters change nothing: the certificate is for that host.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert store.read(ref(web.url("/cat.jpg", host=host))) == IMAGE


@given(
    text=st.one_of(
        st.text(max_size=60),
        st.text(alphabet="abx.-_:/\\@?#[]%0129 \t\r\n;,|", max_size=30),
    ).map("https://{}".format)
)
def test_what_was_checked_is_what_is_asked(text: str) -> None:
    """
    The client reads an address once more, and finds the same host and port in it as the check did.
    """
    try:
        checked = AddressRules(allow_http=False, allowed_hosts=()).checked(text, ErrorCode.EVENT_INVALID)
    except UploadFailed:
        return
    again = parse_url(checked.url)

    assert ("https", checked.host, checked.port) == (again.scheme, again.host, again.port)
    assert not {*"\r\n\t \\"} & {*checked.url}


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["fe80::1%eth0"], ["169.254.169.254"]]
)
def test_no_address_of_a_host_may_be_private(settings: FetchSettings, web: ScriptedWeb, addresses: list[str]) -> None:
    """
    One address that is not public condemns the host, whatever the others are, and nobody is connected to.
    """
    store = HttpsStore(settings, dialer=Dialer(resolve=lambda *_: addresses))
    failed = failure_of(store, web.url("/cat.jpg"))

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert web.connections == 0


def test_private_addresses_are_an_option(settings: FetchSettings) -> None:
    """
    By default a loopback address is refused; the configuration may allow it.
    """
    with scripted_web(tls_for(authority(), "127.0.0.1")) as web:
        web.routes["/cat.jpg"] = answer(200, IMAGE)
        url = web.url("/cat.jpg", host="127.0.0.1")
        failed = failure_of(HttpsStore(settings), url)
        read = HttpsStore(settings.model_copy(update={"allow_private_addresses": True})).read(ref(url))

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert read == IMAGE


def test_a_name_is_resolved_once_per_connection(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    What was checked is what is connected to: a resolver that changes its mind afterwards is not asked again.
    """
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    dialer = Dialer(resolve=lambda *_: next(answers), allowed=lambda address: address == "127.0.0.1")
    store = HttpsStore(settings, dialer=dialer)
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert store.read(ref(web.url("/cat.jpg"))) == IMAGE
    assert next(answers) == ["127.0.0.2"]


def test_the_next_address_is_tried(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    A host whose first address refuses the connection is reached at its second.
    """
    dialer = Dialer(resolve=lambda *_: ["127.0.0.3", "127.0.0.1"], allowed=lambda _: True)
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert HttpsStore(settings, dialer=dialer).read(ref(web.url("/cat.jpg"))) == IMAGE


def test_a_host_that_nobody_knows(settings: FetchSettings) -> None:
    """
    A name without an address is the upstream's failure.
    """

    def unknown(_host: str, _port: int) -> list[str]:
        raise OSError("Name or service not known")

    failed = failure_of(HttpsStore(settings, dialer=Dialer(resolve=unknown)), "https://nowhere.test/cat.jpg")

    assert failed.code is ErrorCode.FETCH_UPSTREAM
    assert "nowhere.test" in failed.detail


def test_a_host_that_refuses_connections(store: HttpsStore, web: ScriptedWeb) -> None:
    """
    Nobody listening is the upstream's failure.
    """
    url = web.url("/cat.jpg").replace(str(web.port), "1")
    failed = failure_of(store, url)

    assert failed.code is ErrorCode.FETCH_UPSTREAM
    assert "refused" in failed.detail
