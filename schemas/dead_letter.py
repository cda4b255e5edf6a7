"""
``image.dead_letter.v1``: a record of the upload topic that came to no judgement, kept byte for byte.

Either it is no upload event, or the verdict on it is failed, with an error of class transient, policy or internal. Then
the letter stands beside that verdict, so that the upload can be sent again once somebody has mended the cause.

The original is carried as base64 inside a JSON event, so that each message on our topics is a CloudEvent that validates
and the original headers (their order, repeats and nulls) survive beside our own.
"""

from base64 import b64decode

from pydantic import AwareDatetime, Field

from schemas.errors import ErrorClass, ErrorCode, Stage
from schemas.wire import Outgoing, Sha256

TYPE = "image.dead_letter.v1"


class OriginalHeader(Outgoing):
    """
    One header of the original record; Kafka allows repeats and null values.
    """

    name: str
    value_base64: str | None


class Original(Outgoing):
    """
    The record as it first lay in the upload topic, also where it was tried again by way of a retry topic.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key_base64: str | None
    value_base64: str | None
    headers: tuple[OriginalHeader, ...]
    value_byte_length: int | None = Field(default=None, ge=0, description="Of the whole value; null for a null value.")
    value_sha256: Sha256 | None = Field(default=None, description="Of the whole value; null for a null value.")
    truncated: bool = Field(
        default=False,
        description="The record is not kept whole. Of one that was too large, the key, then the headers, then the "
        "value were kept as far as there was room; of one that Kafka's clients cannot read, what could be read, header "
        "names with escapes for what is no UTF-8. The whole record lies at topic, partition and offset.",
    )

    def key_bytes(self) -> bytes | None:
        """
        The original key.
        """
        return _bytes(self.key_base64)

    def value_bytes(self) -> bytes | None:
        """
        The original value; only its beginning when ``truncated``.
        """
        return _bytes(self.value_base64)

    def header_items(self) -> tuple[tuple[str, bytes | None], ...]:
        """
        The original headers, in their order.
        """
        return tuple((header.name, _bytes(header.value_base64)) for header in self.headers)


class DeadLetterError(Outgoing):
    """
    Why the record is no upload event, or why its upload could not be judged; then as the failed verdict says it.
    """

    code: ErrorCode
    error_class: ErrorClass = Field(alias="class", serialization_alias="class")
    stage: Stage
    detail: str = Field(max_length=512, description="For people: which field, what was found, what was expected.")


class ImageDeadLetterV1(Outgoing):
    """
    One record that came to no judgement: no upload event, or an upload that failed in a way that may be mended.

    ``event_id`` and ``content_id`` are those of the upload; of what is no upload event, those that could be read.
    """

    error: DeadLetterError
    original: Original
    event_id: str | None
    content_id: str | None
    failed_at: AwareDatetime
    schema_version: str = Field(alias="schema", serialization_alias="schema")
    worker: str


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)
