"""
Dead letters of uploads that could be read: beside a failed verdict, where an operator may mend what made it fail.

Pure functions. The letter of a record that is no upload event is made in ``intake.py``.
"""

from datetime import UTC, datetime
from typing import Final

from schemas import SCHEMA_VERSION
from schemas.dead_letter import DeadLetterError, ImageDeadLetterV1
from schemas.errors import ErrorClass, ErrorCode, class_of
from worker.domain import Upload
from worker.errors import UploadFailed
from worker.stages.intake import KEEP_BYTES, original_of

MENDABLE: Final = frozenset({ErrorClass.TRANSIENT, ErrorClass.POLICY, ErrorClass.INTERNAL})
"""Classes whose failures somebody on this side may mend, so that the upload is worth keeping for another try."""


def has_letter(code: ErrorCode) -> bool:
    """
    Whether a failed verdict with this code has a dead letter beside it; one that only the uploader can mend has none.
    """
    return class_of(code) in MENDABLE


def letter_of_failure(
    upload: Upload, failure: UploadFailed, *, worker_version: str, now_s: float, keep_bytes: int = KEEP_BYTES
) -> ImageDeadLetterV1:
    """
    The upload's first record as a dead letter, whole when it is within ``keep_bytes``.

    ``now_s`` is in seconds since the epoch. Its place is that of the first record, also where this one lay in a retry
    topic: so its id is the same however often it is tried.
    """
    error = DeadLetterError(
        code=failure.code,
        error_class=class_of(failure.code),
        stage=failure.stage,
        detail=failure.detail.encode("utf-8", "replace").decode(),  # a file's name may hold what is no text
    )
    return ImageDeadLetterV1(
        error=error,
        original=original_of(upload.raw, keep_bytes),
        event_id=upload.identity.id,
        content_id=upload.data.content_id,
        failed_at=datetime.fromtimestamp(now_s, UTC),
        schema_version=SCHEMA_VERSION,
        worker=worker_version,
    )
