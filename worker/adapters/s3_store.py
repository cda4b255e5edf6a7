"""
Image bytes from S3-compatible stores: the only module that touches boto3.

Endpoint, credentials and allowed buckets come from the configuration, never from an event. Each profile has a client
of its own, made when it is first asked. No proxy of the environment is used.
"""

import logging
import threading
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from boto3.session import Session
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
from worker.errors import ConfigInvalid, UploadFailed
from worker.settings.images import FetchSettings, S3Profile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES: Final = 16384
# MethodNotAllowed is how S3 answers for a version that is a delete marker.
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed"})
LATER: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
# One attempt, and one more for a kept connection that the store closed just then, or a store that says: slow down.
ATTEMPTS: Final = 2


class S3Store:
    """
    Reads objects through the profiles of the configuration. Called by many threads at once.

    Raises ``ConfigInvalid`` for an endpoint that is no web address.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        for name, profile in settings.s3.items():
            _refuse_misconfigured(name, profile)
        # At DEBUG botocore writes whole requests, Authorization header included.
        logging.getLogger("botocore").setLevel(logging.INFO)
        self._clients: dict[str, S3Client] = {}
        self._making = threading.Lock()

    def read(self, ref: S3Ref) -> bytes:
        """
        The object's bytes; of the version that the reference names, else the latest.

        Raises ``UploadFailed``: REF_FORBIDDEN or one of the FETCH codes. Known hole: ``total_timeout_s`` is looked at
        between chunks of 16 KiB, so that a store which drips can hold a thread longer; unlike a web host, the store is
        the operator's own choice.
        """
        name, profile = self._profile(ref)
        if profile.buckets and ref.bucket not in profile.buckets:
            raise UploadFailed(
                ErrorCode.REF_FORBIDDEN, f"bucket {ref.bucket!r} is not among fetch.s3.{name}.buckets of this worker"
            )
        if not {".", ".."}.isdisjoint(ref.key.split("/")):
            # Some store or proxy resolves them like a path, and so leaves the bucket that was just allowed.
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the key has a '.' or '..' between its slashes")
        place = f"s3 profile {name!r}, bucket {ref.bucket!r}"
        try:
            client = self._client(name, profile)
            # From here: making the first client of a profile is slow on a busy machine, and is not the store's doing.
            deadline_s = time.monotonic() + self._settings.total_timeout_s
            body = self._opened(client, ref, place)
            try:
                return self._contents(body, deadline_s, place)
            finally:
                body.close()
        except ClientError as error:
            raise _refused_by_store(error, place) from error
        except (ConnectTimeoutError, ReadTimeoutError, TimeoutError) as error:
            raise UploadFailed(ErrorCode.FETCH_TIMEOUT, f"{place}: no answer in time") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UploadFailed(
                ErrorCode.FETCH_DENIED, f"{place}: the worker found no credentials; set keys or a role"
            ) from error
        except (BotoCoreError, OSError, ValueError) as error:  # ValueError: headers that mean nothing
            raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{place}: {type(error).__name__}") from error

    def close(self) -> None:
        """
        Idle connections are closed.
        """
        with self._making:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

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
                self._clients[name] = made_client(profile, self._settings)
            return self._clients[name]

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

    def _contents(self, body: StreamingBody, deadline_s: float, place: str) -> bytes:
        contents = bytearray()
        while chunk := _next_chunk(body, place):
            contents += chunk
            if len(contents) > self._settings.max_image_bytes:
                raise self._too_large(place, "sends more")
            if time.monotonic() > deadline_s:
                raise TimeoutError
        return bytes(contents)

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
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=settings.threads,
        proxies={},
        # Not every S3-compatible store knows the newer checksums.
        response_checksum_validation="when_required",
        s3={"addressing_style": "auto" if profile.endpoint_url is None else "path"},
    )
    return session.client("s3", endpoint_url=profile.endpoint_url, config=config)


def _next_chunk(body: StreamingBody, place: str) -> bytes:
    try:
        return body.read(CHUNK_BYTES)
    except (BotoCoreError, OSError):
        raise
    except Exception as error:
        # botocore lets some errors of the HTTP client beneath it through; that client is not to be known here.
        raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{place}: broke off ({type(error).__name__})") from error


def _refused_by_store(error: ClientError, place: str) -> UploadFailed:
    """
    What an S3 error means: by its code where that says more than the HTTP status, else by the status.
    """
    code = error.response.get("Error", {}).get("Code", "")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ABSENT or status == 404:  # noqa: PLR2004 - HTTP
        meaning = ErrorCode.FETCH_NOT_FOUND
    elif code in LATER or status == 429:  # noqa: PLR2004 - HTTP
        meaning = ErrorCode.FETCH_UPSTREAM
    elif 400 <= status < 500:  # noqa: PLR2004 - HTTP
        meaning = ErrorCode.FETCH_DENIED
    else:
        meaning = ErrorCode.FETCH_UPSTREAM
    return UploadFailed(meaning, f"{place}: the store answered {status} {code[:64]}", http_status=status or None)


def _refuse_misconfigured(name: str, profile: S3Profile) -> None:
    if profile.endpoint_url is None:
        return
    parts = urlsplit(profile.endpoint_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigInvalid(
            f"fetch.s3.{name}.endpoint_url is no web address; write one like https://minio.example:9000"
        )
