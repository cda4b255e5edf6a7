"""
Which buckets an event may name, and that a client of S3 sends nothing past the connections of a fetch.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.httpsession import URLLib3Session
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.errors import ErrorCode
from schemas.uploaded import S3Ref
from tests.s3_rig import IMAGE, failure_of, ref, settings_for
from tests.scripted_web import Answer, ScriptedWeb, answer, scripted_web
from worker.adapters.https_pool import PinnedPools
from worker.adapters.s3_rules import is_plain_bucket
from worker.adapters.s3_store import S3Store
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings, S3Profile

DIRECTORY = "evil--use1-az4--x-s3"
NOT_PLAIN = [
    DIRECTORY,
    "evil--ol-s3",
    "evil--op-s3",
    "evil--table-s3",
    "evil-abcdefghijklmno-s3alias",
    "evil.mrap",
    "xn--evil",
    "sthree-evil",
    "amzn-s3-demo-evil",
    "192.168.0.1",
    "a..b",
    "a.-b",
    "a-.b",
    "evil-",
    "evil.",
]


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    A store whose every answer a test writes down.
    """
    with scripted_web() as server:
        yield server


@pytest.fixture(autouse=True)
def bypassed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    What botocore sends over connections of its own, which nothing guards.
    """
    sent: list[str] = []

    def send(_: URLLib3Session, request: Any) -> None:  # noqa: ANN401 - botocore's own
        sent.append(f"{request.method} {request.url}")
        raise OSError("nothing may be sent like this")

    monkeypatch.setattr(URLLib3Session, "send", send)
    return sent


@pytest.mark.parametrize("bucket", NOT_PLAIN)
def test_no_event_names_a_bucket_of_another_kind(web: ScriptedWeb, bypassed: list[str], bucket: str) -> None:
    """
    Names that would be part of another host's, or that no bucket can have, are refused where no list allows them.
    """
    failed = failure_of(S3Store(settings_for(web)), ref(bucket=bucket, profile="open"))

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert "fetch.s3.open.buckets" in failed.detail
    assert (web.connections, bypassed) == (0, [])


@pytest.mark.parametrize("bucket", ["abc", "uploads", "a.b.example", "1234", "a1-b2.c3", "x" * 63])
def test_plain_names_pass(bucket: str) -> None:
    """
    Labels of small letters, digits and hyphens.
    """
    assert is_plain_bucket(bucket)


@given(st.text(alphabet="ab1-._:/%A", max_size=70))
def test_a_plain_name_is_a_host_name(bucket: str) -> None:
    """
    Whatever passes has labels that neither begin nor end with a hyphen, and nothing that ends a host's name.
    """
    labels = bucket.split(".")

    assert not is_plain_bucket(bucket) or all(
        label and set(label) <= set("ab1-") and not label.startswith("-") and not label.endswith("-")
        for label in labels
    )


def test_a_listed_bucket_may_be_of_any_kind(web: ScriptedWeb, bypassed: list[str]) -> None:
    """
    Yet at a store of its own address nothing is sent to another host, whatever the bucket's name makes of it.
    """
    settings = settings_for(web)
    named = {"endpoint_url": f"http://minio.test:{web.port}", "buckets": (DIRECTORY,)}
    listed = settings.s3["shop"].model_copy(update=named)
    store = S3Store(settings.model_copy(update={"s3": {"shop": listed}}))
    failed = failure_of(store, ref(bucket=DIRECTORY))

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert "endpoint_url" in failed.detail
    assert (web.connections, bypassed) == (0, [])


def test_a_listed_directory_bucket_is_read_without_a_session(
    bypassed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One request, for the object itself, over the guarded connections.
    """
    asked: list[str] = []

    def get(_: PinnedPools, url: str, headers: dict[str, str]) -> None:
        asked.append(url)
        raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"no network, {len(headers)} headers")

    monkeypatch.setattr(PinnedPools, "get", get)
    profile = S3Profile.model_validate(
        {"region": "us-east-1", "access_key_id": "k", "secret_access_key": "s", "buckets": (DIRECTORY,)}
    )
    failed = failure_of(S3Store(FetchSettings(s3={"aws": profile})), ref(bucket=DIRECTORY, profile="aws"))

    assert "no network" in failed.detail
    assert asked == [f"https://{DIRECTORY}.s3express-use1-az4.us-east-1.amazonaws.com/cat.jpg"]
    assert bypassed == []


ELSEWHERE = (
    "<?xml version='1.0'?><Error><Code>{}</Code><Message>x</Message><Endpoint>evil.test</Endpoint>{}</Error>".format
)


@pytest.mark.parametrize(
    "moved",
    [
        answer(301, ELSEWHERE("PermanentRedirect", "").encode(), x_amz_bucket_region="eu-west-1"),
        answer(301, ELSEWHERE("PermanentRedirect", "<Region>eu-west-1</Region>").encode()),
        answer(307, b"", x_amz_bucket_region="eu-west-1", Location="http://evil.test/"),
        answer(400, ELSEWHERE("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>").encode()),
        answer(400, ELSEWHERE("IllegalLocationConstraintException", "").encode(), x_amz_bucket_region="eu-west-1"),
    ],
    ids=["header", "body", "location", "signature", "opt-in region"],
)
def test_a_bucket_of_another_region_is_asked_for_at_the_same_address(
    web: ScriptedWeb, bypassed: list[str], moved: Answer
) -> None:
    """
    Where the store says which region it is, botocore signs anew for it; that request too is guarded.
    """
    answers = iter([moved, answer(200, IMAGE)])
    web.routes["/uploads/cat.jpg"] = Answer(lambda: next(answers).parts())
    read = S3Store(settings_for(web)).read(ref())

    assert read == IMAGE
    assert ["/eu-central-1/s3/" in head for head in web.asked] == [True, False]
    assert "/eu-west-1/s3/" in web.asked[1]
    assert bypassed == []


def test_nobody_looks_for_the_region_of_a_bucket(web: ScriptedWeb, bypassed: list[str]) -> None:
    """
    Where the store does not say it, the operator is told to; no other request goes out.
    """
    web.routes["/uploads/cat.jpg"] = answer(301, ELSEWHERE("PermanentRedirect", "").encode())
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert failed.code is ErrorCode.FETCH_UNAUTHORIZED
    assert "region" in failed.detail
    assert (len(web.asked), bypassed) == (1, [])


def test_a_second_attempt_is_guarded_too(web: ScriptedWeb, bypassed: list[str]) -> None:
    """
    Botocore asks a busy store once more, over the same connections.
    """
    busy, well = answer(503, ELSEWHERE("SlowDown", "").encode()), answer(200, IMAGE)
    answers = iter([busy, well])
    web.routes["/uploads/cat.jpg"] = Answer(lambda: next(answers).parts())

    assert S3Store(settings_for(web)).read(ref()) == IMAGE
    assert (len(web.asked), bypassed) == (2, [])


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda client: client.create_session(Bucket="uploads"), "/uploads?session"),
        (lambda client: client.head_bucket(Bucket="uploads"), ""),
        (lambda client: client.put_object(Bucket="uploads", Key="k", Body=b""), ""),
        (lambda client: client.list_buckets(), "/"),
    ],
    ids=["session", "head", "put", "list"],
)
def test_no_operation_is_sent_past_the_guard(
    web: ScriptedWeb, bypassed: list[str], call: Callable[[Any], object], path: str
) -> None:
    """
    Whatever a client is asked to do, it reads over the guarded connections or is refused.
    """
    web.routes[path.partition("?")[0]] = answer(500)
    store = S3Store(settings_for(web))
    with pytest.raises(Exception):  # noqa: B017, PT011 - what it raises is botocore's affair
        call(client_of(store))

    assert bypassed == []
    assert [head.split(" ")[1] for head in web.asked][:1] == ([path] if path else [])


def client_of(store: S3Store) -> Any:  # noqa: ANN401 - botocore's clients have no type at run time
    """
    The client of a store's default profile.
    """
    name, profile = store._profile(S3Ref(kind="s3", bucket="uploads", key="k"))
    return store._client(name, profile)


def test_a_profile_for_any_bucket_is_told(web: ScriptedWeb) -> None:
    """
    As the worker starts; those that list their buckets are not named.
    """
    with capture_logs() as told:
        S3Store(settings_for(web))
    with capture_logs() as silent:
        S3Store(settings_for(web, s3={"shop": settings_for(web).s3["shop"]}))

    assert [("s3.any_bucket", ["open", "public"])] == [(one["event"], one["profiles"]) for one in told]
    assert [] == silent
