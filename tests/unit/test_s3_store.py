"""
Reading from S3-compatible stores: what the configuration allows, and what each answer of a store means.

The store of the contract suite is moto's; the ones here misbehave as moto does not.
"""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from schemas.errors import ErrorCode
from schemas.uploaded import S3Ref
from tests.s3_rig import IMAGE, failure_of, ref, settings_for
from tests.scripted_web import Answer, ScriptedWeb, answer, scripted_web
from worker.adapters import fetch_limits, s3_store
from worker.adapters.s3_store import S3Store
from worker.errors import ConfigInvalid
from worker.settings.images import FetchSettings, S3Profile

GONE = ErrorCode.FETCH_NOT_FOUND


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    A store whose every answer a test writes down.
    """
    with scripted_web() as server:
        yield server


def test_the_default_profile_is_asked(web: ScriptedWeb) -> None:
    """
    A reference that names no profile is read with the default one, signed, path style, at the configured endpoint.
    """
    web.routes["/uploads/cat.jpg"] = answer(200, IMAGE)
    read = S3Store(settings_for(web)).read(ref())

    assert read == IMAGE
    assert "AWS4-HMAC-SHA256 Credential=key-of-a-test/" in web.asked[0]


@pytest.mark.parametrize(
    "reference",
    [
        ref(bucket="payroll"),
        ref(bucket="payroll", profile="shop"),
        ref(profile="unknown"),
        ref(key="../payroll/list.png"),
        ref(key="a/./b"),
        ref(key=".."),
    ],
    ids=["bucket", "bucket of a named profile", "profile", "leaves the bucket", "dot", "dots"],
)
def test_what_the_configuration_does_not_allow_is_not_asked(web: ScriptedWeb, reference: S3Ref) -> None:
    """
    An unknown profile, a bucket that is not listed, and a key that climbs out of its bucket are refused unasked.
    """
    failed = failure_of(S3Store(settings_for(web)), reference)

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert web.connections == 0


def test_without_a_default_a_profile_must_be_named(web: ScriptedWeb) -> None:
    """
    No profile in the reference and none by default is a refusal, not a guess.
    """
    failed = failure_of(S3Store(settings_for(web, s3_default_profile=None)), ref())

    assert failed.code is ErrorCode.REF_FORBIDDEN
    assert "s3_default_profile" in failed.detail


def test_no_list_of_buckets_means_all(web: ScriptedWeb) -> None:
    """
    A profile without a list reads whatever its credentials may.
    """
    web.routes["/payroll/cat.jpg"] = answer(200, IMAGE)

    assert S3Store(settings_for(web)).read(ref(bucket="payroll", profile="open")) == IMAGE


@pytest.mark.parametrize(
    ("status", "s3_code", "code"),
    [
        (404, "NoSuchKey", ErrorCode.FETCH_NOT_FOUND),
        (404, "NoSuchBucket", ErrorCode.FETCH_UPSTREAM),
        (405, "MethodNotAllowed", ErrorCode.FETCH_NOT_FOUND),
        (401, "Unauthorized", ErrorCode.FETCH_UNAUTHORIZED),
        (403, "AccessDenied", ErrorCode.FETCH_UNAUTHORIZED),
        (403, "SignatureDoesNotMatch", ErrorCode.FETCH_UNAUTHORIZED),
        (403, "InvalidAccessKeyId", ErrorCode.FETCH_UNAUTHORIZED),
        (403, "RequestTimeTooSkewed", ErrorCode.FETCH_UNAUTHORIZED),
        (400, "ExpiredToken", ErrorCode.FETCH_UNAUTHORIZED),
        (400, "InvalidToken", ErrorCode.FETCH_UNAUTHORIZED),
        (403, "InvalidObjectState", ErrorCode.FETCH_DENIED),
        (400, "InvalidArgument", ErrorCode.FETCH_DENIED),
        (400, "RequestTimeout", ErrorCode.FETCH_UPSTREAM),
        (429, "TooManyRequests", ErrorCode.FETCH_UPSTREAM),
        (500, "InternalError", ErrorCode.FETCH_UPSTREAM),
        (503, "SlowDown", ErrorCode.FETCH_UPSTREAM),
    ],
)
def test_each_answer_has_its_code(web: ScriptedWeb, status: int, s3_code: str, code: ErrorCode) -> None:
    """
    What the store says becomes a stable code; status and the store's own code are kept for people.
    """
    body = f"<?xml version='1.0'?><Error><Code>{s3_code}</Code><Message>private words</Message></Error>".encode()
    web.routes["/uploads/cat.jpg"] = answer(status, body, Content_Type="application/xml")
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert (failed.code, failed.http_status) == (code, status)
    assert s3_code in failed.detail
    assert "private words" not in failed.detail


def test_a_bucket_that_nobody_lists_may_be_absent(web: ScriptedWeb) -> None:
    """
    Where every bucket may be read, one that is not there is the mistake of whoever named it.
    """
    web.routes["/nobodys/cat.jpg"] = answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")

    assert failure_of(S3Store(settings_for(web)), ref(bucket="nobodys", profile="open")).code is GONE


def test_a_declared_size_above_the_limit_is_refused_unread(web: ScriptedWeb) -> None:
    """
    What says that it is too large is not read.
    """
    web.routes["/uploads/cat.jpg"] = web.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", b"x")
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert failed.code is ErrorCode.FETCH_TOO_LARGE
    assert "100001" in failed.detail


def test_a_size_that_was_not_declared_is_counted(web: ScriptedWeb) -> None:
    """
    An endless body is cut off at the limit.
    """
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.routes["/uploads/cat.jpg"] = web.dripping(head, chunk * 8)
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert failed.code is ErrorCode.FETCH_TOO_LARGE


def test_a_body_that_breaks_off_is_no_image(web: ScriptedWeb) -> None:
    """
    Fewer bytes than declared are not passed on as the whole.
    """
    web.routes["/uploads/cat.jpg"] = answer(200, IMAGE, keeps_open=False, Content_Length=str(len(IMAGE) + 1))
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert failed.code is ErrorCode.FETCH_UPSTREAM


def test_a_store_that_says_nothing_holds_nobody(web: ScriptedWeb) -> None:
    """
    Silence ends with the read time-out, once tried again.
    """
    web.routes["/uploads/cat.jpg"] = web.silent()
    started_s = time.monotonic()
    failed = failure_of(S3Store(settings_for(web, read_timeout_s=0.2)), ref())

    assert failed.code is ErrorCode.FETCH_TIMEOUT
    assert time.monotonic() - started_s < 18


def test_a_slow_body_ends_with_the_total_time(web: ScriptedWeb) -> None:
    """
    A body that keeps coming, slowly, is given up when the total time is over.
    """
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"
    web.routes["/uploads/cat.jpg"] = web.dripping(head, bytes(512))
    times = {"read_timeout_s": 0.3, "connect_timeout_s": 0.3, "total_timeout_s": 0.3}
    failed = failure_of(S3Store(settings_for(web, **times)), ref())

    assert failed.code is ErrorCode.FETCH_TIMEOUT


def test_making_the_client_takes_none_of_the_fetchs_time(web: ScriptedWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first upload of a profile is not given up because the worker was slow to get ready for it.
    """
    late_s = 0.0
    made, real = s3_store.made_client, time.monotonic

    def slowly_made(profile: S3Profile, settings: FetchSettings) -> object:
        nonlocal late_s
        late_s += 1000
        return made(profile, settings)

    monkeypatch.setattr(s3_store, "made_client", slowly_made)
    monkeypatch.setattr(fetch_limits, "time", SimpleNamespace(monotonic=lambda: real() + late_s))
    web.routes["/uploads/cat.jpg"] = answer(200, IMAGE)

    assert S3Store(settings_for(web)).read(ref()) == IMAGE


def test_nobody_at_the_endpoint(web: ScriptedWeb) -> None:
    """
    An endpoint where nobody listens is the upstream's failure.
    """
    settings = settings_for(web)
    unreachable = settings.s3["shop"].model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    failed = failure_of(S3Store(settings.model_copy(update={"s3": {"shop": unreachable}})), ref())

    assert failed.code is ErrorCode.FETCH_UPSTREAM


NO_S3 = {
    "noise": b"no http\r\n\r\n",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
    "time that is none": b"HTTP/1.1 200 OK\r\nLast-Modified: then\r\nContent-Length: 3\r\n\r\nabc",
    "error that is no XML": b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\n<<<",
    "chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
}


@pytest.mark.parametrize("noise", NO_S3.values(), ids=NO_S3.keys())
def test_what_is_no_s3_is_a_failure_like_any_other(web: ScriptedWeb, noise: bytes) -> None:
    """
    An endpoint that speaks something else ends this fetch and nothing else.
    """
    web.routes["/uploads/cat.jpg"] = Answer(lambda: [noise], keeps_open=False)
    failed = failure_of(S3Store(settings_for(web)), ref())

    assert failed.code in {ErrorCode.FETCH_UPSTREAM, ErrorCode.FETCH_UNAUTHORIZED}


def test_no_credentials_at_all(web: ScriptedWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without keys in the profile or anywhere in boto3's chain, the operator is told what is missing.
    """
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
    ):
        monkeypatch.setenv(name, value)
    settings = settings_for(web)
    keyless = S3Profile(endpoint_url=settings.s3["shop"].endpoint_url, region="eu-central-1")
    failed = failure_of(S3Store(settings.model_copy(update={"s3": {"shop": keyless}})), ref())

    assert failed.code is ErrorCode.FETCH_UNAUTHORIZED
    assert "credentials" in failed.detail


def test_proxies_of_the_environment_are_not_used(web: ScriptedWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A proxy variable does not lead the fetch elsewhere.
    """
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web.routes["/uploads/cat.jpg"] = answer(200, IMAGE)

    assert S3Store(settings_for(web)).read(ref()) == IMAGE


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio", "https://", "not an address"])
def test_an_endpoint_that_is_no_web_address_stops_the_start(web: ScriptedWeb, endpoint: str) -> None:
    """
    A wrong endpoint is found when the store is made, and the error names the key.
    """
    settings = settings_for(web)
    wrong = settings.s3["shop"].model_copy(update={"endpoint_url": endpoint})
    with pytest.raises(ConfigInvalid, match=r"fetch\.s3\.shop\.endpoint_url"):
        S3Store(settings.model_copy(update={"s3": {"shop": wrong}}))
