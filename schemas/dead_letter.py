"""
``image.dead_letter.v1``: a record of the upload topic that is no upload event, kept byte for byte.

The original is carried as base64 inside a JSON event, so that each message on our topics is a CloudEvent that validates
and the original headers (their order, repeats and nulls) survive beside our own.
"""

from pydantic import AwareDatetime, Field

from schemas.errors import ErrorClass, ErrorCode, Stage
from schemas.wire import Outgoing

TYPE = "image.dead_letter.v1"


class OriginalHeader(Outgoing):
    """
    One header of the original record; Kafka allows repeats and null values.
    """

    name: str
    value_base64: str | None


class Original(Outgoing):
    """
    The record as it lay in the upload topic.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key_base64: str | None
    value_base64: str | None
    headers: tuple[OriginalHeader, ...]


class DeadLetterError(Outgoing):
    """
    Why the record could not be read as an upload event.
    """

    code: ErrorCode
    error_class: ErrorClass = Field(alias="class", serialization_alias="class")
    stage: Stage
    detail: str = Field(max_length=512)


class ImageDeadLetterV1(Outgoing):
    """
    One unreadable record. ``event_id`` and ``content_id`` are filled where they could be read all the same.
    """

    error: DeadLetterError
    original: Original
    event_id: str | None
    content_id: str | None
    failed_at: AwareDatetime
    schema_version: str = Field(alias="schema", serialization_alias="schema")
    worker: str
