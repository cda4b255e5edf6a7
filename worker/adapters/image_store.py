"""
One image store out of four: each kind of reference goes to the store that knows it.

What the kinds are is said in ``schemas/uploaded.py``; how each is read, in the store's own module.
"""

from collections.abc import Callable
from typing import Protocol, assert_never

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef, HttpsRef, InlineRef, S3Ref, UploadedImage
from worker.adapters.file_store import FileStore
from worker.adapters.host_gates import HostGates
from worker.adapters.https_store import Hop, HttpsStore
from worker.adapters.inline_store import InlineStore
from worker.adapters.system_clock import SystemClock
from worker.errors import UploadFailed
from worker.ports import Recorder
from worker.settings.images import FetchSettings
from worker.telemetry.metrics import InMemoryRecorder


class S3Reader(Protocol):
    """
    What reads ``s3://`` references; ``S3Store`` where a profile is configured.
    """

    def read(self, ref: S3Ref) -> bytes:
        """
        The object's bytes; raises ``UploadFailed``.
        """

    def close(self) -> None:
        """
        Release what is held.
        """


class RoutedImageStore:
    """
    The ``ImageStore`` of the worker: inline, https, and whichever of s3 and file are configured.
    """

    def __init__(
        self, https: HttpsStore, *, s3: S3Reader | None, files: FileStore | None, max_image_bytes: int
    ) -> None:
        self._inline = InlineStore()
        self._https = https
        self._s3 = s3
        self._files = files
        self._max_image_bytes = max_image_bytes

    def read(self, image: UploadedImage) -> bytes:
        """
        The image's bytes, whole, within the configured limits of size and time. Raises ``UploadFailed``.
        """
        data = self._read(image)
        if len(data) > self._max_image_bytes:
            raise UploadFailed(
                ErrorCode.FETCH_TOO_LARGE, f"the image has {len(data)} bytes, at most {self._max_image_bytes} are taken"
            )
        return data

    def close(self) -> None:
        """
        Release the connections that are kept.
        """
        self._https.close()
        if self._s3 is not None:
            self._s3.close()

    def _read(self, image: UploadedImage) -> bytes:
        match image.ref:
            case InlineRef() as ref:
                return self._inline.read(ref)
            case HttpsRef() as ref:
                return self._https.read(ref)
            case S3Ref() as ref:
                if self._s3 is None:
                    raise UploadFailed(ErrorCode.REF_FORBIDDEN, "s3 references are refused: fetch.s3 has no profile")
                return self._s3.read(ref)
            case FileRef() as ref:
                if self._files is None:
                    raise UploadFailed(
                        ErrorCode.REF_FORBIDDEN, "file references are refused: fetch.file_root is not set"
                    )
                return self._files.read(ref)
            case _:
                assert_never(image.ref)


def build_image_store(
    settings: FetchSettings, recorder: Recorder | None = None, *, on_hop: Callable[[Hop], None] = lambda _: None
) -> RoutedImageStore:
    """
    The image store that the configuration describes; ``on_hop`` is told every answer of a web host.

    Raises ``CannotStart`` for a file or directory that is not there, ``ConfigInvalid`` for an unusable S3 profile.
    """
    limit = settings.max_image_bytes
    gates = HostGates(settings, clock=SystemClock(), recorder=recorder or InMemoryRecorder())
    return RoutedImageStore(
        HttpsStore(settings, gates=gates, on_hop=on_hop),
        s3=_s3_reader(settings, gates) if settings.s3 else None,
        files=None if settings.file_root is None else FileStore(settings.file_root, max_image_bytes=limit),
        max_image_bytes=limit,
    )


def _s3_reader(settings: FetchSettings, gates: HostGates) -> S3Reader:
    from worker.adapters.s3_store import S3Store  # noqa: PLC0415 - boto3 takes 0.4 s to load, and few need it

    return S3Store(settings, gates=gates)
