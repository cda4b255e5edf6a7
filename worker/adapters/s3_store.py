"""
Image bytes from S3-compatible stores: the only module that touches boto3.

Endpoint, credentials and allowed buckets come from the configuration, never from an event; what an event may name is in
``s3_rules.py``. Each profile has a client of its own, made when it is first asked. Whatever a client sends goes over
the connections of ``https_pool.py``, so that the limits of a fetch hold here as for any web host; botocore signs, and
reads what the store says. No proxy of the environment is used.
"""

import logging
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from boto3.session import Session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.response import StreamingBody

from schemas.errors import ErrorCode
from schemas.uploaded import S3Ref
from worker.adapters.fetch_limits import FetchLimits, fetch_limits
from worker.adapters.guarded_dial import Dialer
from worker.adapters.host_gates import HostGates
from worker.adapters.https_pool import CHUNK_BYTES, FETCH_FAULTS, PinnedPools, fault_as_failure
from worker.adapters.retry_after import retry_after_s
from worker.adapters.s3_rules import refuse_misconfigured, refuse_other_requests, refuse_unless_allowed
from worker.adapters.system_clock import SystemClock
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings, S3Profile
from worker.telemetry.metrics import InMemoryRecorder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# MethodNotAllowed is how S3 answers for a version that is a delete marker.
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed"})
# Those that come with 400; with 401 and 403 nearly all speak of our credentials, clock or rights.
US_REFUSED: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"})
# An object in a cold archive: 403, whoever asks.
NOT_READABLE: Final = frozenset({"InvalidObjectState"})
LATER: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
SAYING_WHEN: Final = frozenset({429, 503})
# One attempt, and one more for a kept connection that the store closed just then, or a store that says: slow down.
ATTEMPTS: Final = 2


log = structlog.get_logger(__name__)


class S3Store:
    """
    Reads objects through the profiles of the configuration. Called by many threads at once.

    Raises ``ConfigInvalid`` for an endpoint that is no web address.
    """

    def __init__(self, settings: FetchSettings, *, gates: HostGates | None = None) -> None:
        self._settings = settings
        refuse_misconfigured(settings.s3)
        if open_to_all := [name for name, profile in settings.s3.items() if not profile.buckets]:
            log.warning("s3.any_bucket", profiles=open_to_all, advice="list what may be read in fetch.s3.NAME.buckets")
        # At DEBUG botocore writes whole requests, Authorization header included.
        logging.getLogger("botocore").setLevel(logging.INFO)
        self._limits = FetchLimits.of(settings)
        self._clock = SystemClock()
        self._gates = gates or HostGates(settings, clock=self._clock, recorder=InMemoryRecorder())
        # The store is the operator's own choice: its address may be a private one.
        self._pools = PinnedPools(settings, Dialer(allowed=lambda _: True, named=lambda _, __: True))
        self._clients: dict[str, S3Client] = {}
        self._making = threading.Lock()

    def read(self, ref: S3Ref) -> bytes:
        """
        The object's bytes; of the version that the reference names, else the latest.

        Raises ``UploadFailed``: REF_FORBIDDEN or one of the FETCH codes.
        """
        name, profile = self._profile(ref)
        refuse_unless_allowed(ref, name, profile)
        place = f"s3 profile {name!r}, bucket {ref.bucket!r}"
        client = self._client(name, profile)
        # From here: making the first client of a profile is slow on a busy machine, and is not the store's doing.
        with fetch_limits(self._limits), self._gates.through(f"s3 profile {name!r}", own=True):
            try:
                with closing(self._opened(client, ref, place)) as body:
                    return self._contents(body, place)
            except ClientError as error:
                raise self._refused_by_store(error, place, listed=ref.bucket in profile.buckets) from error
            except (ConnectTimeoutError, ReadTimeoutError, TimeoutError) as error:
                raise UploadFailed(ErrorCode.FETCH_TIMEOUT, f"{place}: no answer in time") from error
            except (NoCredentialsError, PartialCredentialsError) as error:
                raise UploadFailed(
                    ErrorCode.FETCH_UNAUTHORIZED, f"{place}: the worker found no credentials; set keys or a role"
                ) from error
            except BotoCoreError as error:
                raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{place}: {type(error).__name__}") from error
            except FETCH_FAULTS as error:
                raise fault_as_failure(error, place) from error

    def close(self) -> None:
        """
        Idle connections are closed.
        """
        with self._making:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
        self._pools.close()

    def _profile(self, ref: S3Ref) -> tuple[str, S3Profile]:
        name = ref.profile or self._settings.s3_default_profile
        if name is None:
            raise UploadFailed(
                ErrorCode.REF_FORBIDDEN, "the reference names no S3 profile and fetch.s3_default_profile is not set"
            )
        if name not in self._settings.s3:
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, f"S3 profile {name!r} is not configured in fetch.s3")
        return name, self._settings.s3[name]

    def _client(self, name: str, profile: S3Profile) -> "S3Client":
        with self._making:  # a client may be shared between threads; making one may not
            if name not in self._clients:
                client = made_client(profile, self._settings)
                sent: Any = partial(self._sent, name, profile)  # the stubs know no handler that answers
                # Every operation: botocore asks for more than objects by itself, and over connections of its own.
                client.meta.events.register("before-send.s3", sent)
                self._clients[name] = client
            return self._clients[name]

    def _sent(self, name: str, profile: S3Profile, request: AWSPreparedRequest, **_: Any) -> AWSResponse:  # noqa: ANN401 - whatever botocore adds
        """
        The answer to a signed request, in the place of botocore's own HTTP client.
        """
        refuse_other_requests(request.method, request.url, name, profile)
        headers = {name: _as_text(value) for name, value in request.headers.items()}
        response = self._pools.get(request.url, headers)
        told: Any = response.headers  # the stubs know only http.client's; botocore itself passes these
        return AWSResponse(request.url, response.status, told, response)

    def _opened(self, client: "S3Client", ref: S3Ref, place: str) -> StreamingBody:
        if ref.version_id is None:
            answer = client.get_object(Bucket=ref.bucket, Key=ref.key)
        else:
            answer = client.get_object(Bucket=ref.bucket, Key=ref.key, VersionId=ref.version_id)
        declared = answer.get("ContentLength", 0)  # a chunked answer declares none
        if declared > self._settings.max_image_bytes:
            answer["Body"].close()
            raise self._too_large(place, f"has {declared} bytes")
        return answer["Body"]

    def _contents(self, body: StreamingBody, place: str) -> bytes:
        contents = bytearray()
        while chunk := body.read(CHUNK_BYTES):
            contents += chunk
            if len(contents) > self._settings.max_image_bytes:
                raise self._too_large(place, "sends more")
        return bytes(contents)

    def _refused_by_store(self, error: ClientError, place: str, *, listed: bool) -> UploadFailed:
        """
        What an S3 error means: by its code where that says more than the HTTP status, else by the status.

        A bucket that the operator has ``listed`` and that is not there is no uploader's mistake.
        """
        code = error.response.get("Error", {}).get("Code", "")
        told = error.response.get("ResponseMetadata", {})
        status = int(told.get("HTTPStatusCode", 0))
        later = code in LATER or status in SAYING_WHEN
        if code == "NoSuchBucket" and listed:
            meaning = ErrorCode.FETCH_UPSTREAM
        elif code in US_REFUSED or (status in {401, 403} and code not in NOT_READABLE):
            meaning = ErrorCode.FETCH_UNAUTHORIZED
        elif code in ABSENT or status == 404:  # noqa: PLR2004 - HTTP
            meaning = ErrorCode.FETCH_NOT_FOUND
        elif 400 <= status < 500 and not later:  # noqa: PLR2004 - HTTP
            meaning = ErrorCode.FETCH_DENIED
        else:
            meaning = ErrorCode.FETCH_UPSTREAM
        asked = told.get("HTTPHeaders", {}).get("retry-after") if later else None
        return UploadFailed(
            meaning,
            f"{place}: the store answered {status} {code[:64]}",
            http_status=status or None,
            retry_after_s=retry_after_s(asked, now_s=self._clock.wall_s()),
        )

    def _too_large(self, place: str, found: str) -> UploadFailed:
        return UploadFailed(
            ErrorCode.FETCH_TOO_LARGE,
            f"{place}: the object {found}; at most {self._settings.max_image_bytes} bytes are fetched",
        )


def made_client(profile: S3Profile, settings: FetchSettings) -> "S3Client":
    """
    A client of this profile; making one is slow, and not to be done by two threads at once.
    """
    secret = profile.secret_access_key
    # A session of its own: boto3's default session is not safe between threads.
    session = Session(
        aws_access_key_id=profile.access_key_id,
        aws_secret_access_key=None if secret is None else secret.get_secret_value(),
        region_name=profile.region,
    )
    options: Any = {  # the stubs know fewer than botocore reads
        "addressing_style": "auto" if profile.endpoint_url is None else "path",
        # Else the name of a bucket alone makes botocore ask another host for a session, and wait as it likes.
        "disable_s3_express_session_auth": True,
    }
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=settings.threads,
        proxies={},
        # Not every S3-compatible store knows the newer checksums.
        response_checksum_validation="when_required",
        s3=options,
    )
    return session.client("s3", endpoint_url=profile.endpoint_url, config=config)


def _as_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
