"""
Whose failure a fetch is that leads nowhere: the uploader's, who may have made the host up, or ours.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import ErrorClass, ErrorCode, class_of
from tests.builders import an_upload
from tests.https_rig import IMAGE, SECRET, authority, failure_of, local_only, ref, settings_trusting
from tests.scripted_web import HOST, ScriptedWeb, answer, scripted_web, tls_for
from worker.adapters.guarded_dial import Dialer
from worker.adapters.https_store import HttpsStore
from worker.adapters.image_places import place_of
from worker.errors import UploadFailed
from worker.flow.places import HOSTS_REMEMBERED, Deliveries, Place
from worker.settings.images import FetchSettings

OTHER = "other.test"
NAMING = FetchSettings.model_validate(
    {
        "own_hosts": ["Own.test"],
        "allowed_hosts": ["allowed.test", "*.below.test"],
        "http": {"api": {"hosts": ["api.test:8443"], "bearer_token": SECRET}},
        "s3": {"shop": {"buckets": ["listed"]}, "open": {}},
        "s3_default_profile": "shop",
    }
)


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    An https server for two hosts.
    """
    with scripted_web(tls_for(authority(), HOST, OTHER)) as server:
        yield server


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://own.test/a", Place("own.test:443", ours=True)),
        ("https://OWN.test.:443/a", Place("own.test:443", ours=True)),
        ("https://own.test:4444/a", Place("own.test:4444", ours=False)),
        ("https://allowed.test/a?b", Place("allowed.test:443", ours=True)),
        ("https://made-up.below.test/a", Place("made-up.below.test:443", ours=False)),
        ("https://api.test:8443/a", Place("api.test:8443", ours=True)),
        ("https://api.test/a", Place("api.test:443", ours=False)),
        ("https://evil.test/@own.test", Place("evil.test:443", ours=False)),
        ("https://user@own.test/", None),
        ("https://[::1/", None),
    ],
)
def test_which_hosts_are_ours(url: str, place: Place | None) -> None:
    """
    Those that are written out in full in the settings, at their port; no name that an uploader may make up.
    """
    upload = an_upload(image={"ref": {"kind": "https", "url": url}})

    assert place == place_of(upload, NAMING)


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ({"kind": "s3", "bucket": "listed", "key": "a"}, Place("s3:shop/listed", ours=True)),
        ({"kind": "s3", "bucket": "made-up", "key": "a", "profile": "open"}, Place("s3:open/*", ours=True)),
        ({"kind": "file", "path": "a"}, Place("file:", ours=True)),
        ({"kind": "inline", "base64": "aaaa"}, None),
    ],
)
def test_stores_are_ours(reference: dict[str, str], place: Place | None) -> None:
    """
    Each listed bucket is a place of its own; all that nobody lists are one, however many an uploader names.
    """
    assert place == place_of(an_upload(image={"ref": reference}), NAMING)


def test_own_hosts_are_written_out() -> None:
    """
    A pattern that covers made-up names is refused, and the message says why.
    """
    with pytest.raises(ValidationError, match=r"own_hosts names '\*\.cdn\.test': write each host out"):
        FetchSettings(own_hosts=("*.cdn.test",))


def test_deliveries_of_what_is_ours_need_no_memory() -> None:
    """
    Of other hosts the last few thousand that delivered are remembered, each with its number.
    """
    deliveries = Deliveries()
    deliveries.add(Place("ours", ours=True))
    busy = Place("busy", ours=False)
    for number in range(HOSTS_REMEMBERED + 10):
        deliveries.add(Place(f"host{number}", ours=False))
        if not number % 1000:
            deliveries.add(busy)

    assert HOSTS_REMEMBERED == len(deliveries)
    assert 5 == deliveries.of(busy)
    assert 0 == deliveries.of(Place("host0", ours=False))


@pytest.mark.parametrize(
    ("number", "host", "code"),
    [
        (socket.EAI_NONAME, OTHER, ErrorCode.FETCH_NOT_FOUND),
        (socket.EAI_NODATA, OTHER, ErrorCode.FETCH_NOT_FOUND),
        (socket.EAI_NONAME, HOST, ErrorCode.FETCH_UPSTREAM),
        (socket.EAI_AGAIN, OTHER, ErrorCode.FETCH_UPSTREAM),
        (socket.EAI_FAIL, OTHER, ErrorCode.FETCH_UPSTREAM),
    ],
)
def test_a_host_that_does_not_exist(number: int, host: str, code: ErrorCode) -> None:
    """
    A name that is not there is not asked for again: unless the operator names it, or the resolver could not tell.
    """

    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(number, "no")

    dialer = Dialer(resolve=resolve, named=lambda name, port: (name, port) == (HOST, 443))
    with pytest.raises(UploadFailed, match=f"(?i){host}") as failed:
        dialer.connect(f"{host.upper()}.", 443, 1.0)

    assert code is failed.value.code


def test_the_worker_s_own_dialer_knows_who_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As the configuration names them.
    """

    def nobody(*_args: object, **_options: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    store = HttpsStore(NAMING)

    assert ErrorCode.FETCH_UPSTREAM is failure_of(store, "https://allowed.test/cat.jpg").code
    assert ErrorCode.FETCH_NOT_FOUND is failure_of(store, "https://a.below.test/cat.jpg").code


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_an_operator_s_affair(tmp_path: Path, web: ScriptedWeb, status: int) -> None:
    """
    Where ours were sent the code says so, and has a letter; where none were, and for other answers, it does not.
    """
    settings = settings_trusting(tmp_path / "ca.pem")
    port = web.url("/").rpartition(":")[2].rstrip("/")
    credentials = {"ours": {"hosts": [f"{HOST}:{port}"], "bearer_token": SECRET}}
    settings = FetchSettings.model_validate(settings.model_dump() | {"http": credentials})
    store = HttpsStore(settings, dialer=local_only())
    web.routes["/cat.jpg"] = answer(status, b"no")
    web.routes["/gone.jpg"] = answer(404, b"no")
    web.routes["/away.jpg"] = answer(302, Location=web.url("/cat.jpg", host=OTHER))
    codes = [failure_of(store, web.url(path)).code for path in ("/cat.jpg", "/gone.jpg", "/away.jpg")]

    assert [ErrorCode.FETCH_UNAUTHORIZED, ErrorCode.FETCH_NOT_FOUND, ErrorCode.FETCH_DENIED] == codes
    assert ErrorCode.FETCH_DENIED is failure_of(store, web.url("/cat.jpg", host=OTHER)).code
    assert ErrorClass.POLICY is class_of(ErrorCode.FETCH_UNAUTHORIZED)


def test_an_image_is_read_for_all_that(tmp_path: Path, web: ScriptedWeb) -> None:
    """
    With good credentials nothing of this is in the way.
    """
    web.routes["/cat.jpg"] = answer(200, IMAGE)

    assert IMAGE == HttpsStore(settings_trusting(tmp_path / "ca.pem"), dialer=local_only()).read(
        ref(web.url("/cat.jpg"))
    )
