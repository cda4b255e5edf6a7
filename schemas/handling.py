"""
How an upload was handled: when, how long each stage took, and what went wrong. Parts of a verdict.
"""

from pydantic import AwareDatetime, Field

from schemas.errors import ErrorClass, ErrorCode, Stage
from schemas.wire import Milliseconds, Outgoing


class Timing(Outgoing):
    """
    When, and how long each stage took for this upload.
    """

    received_at: AwareDatetime
    produced_at: AwareDatetime
    event_age_ms: Milliseconds | None = Field(description="Since the event's own time, else the record's.")
    total_ms: Milliseconds
    fetch_ms: Milliseconds | None = None
    decode_ms: Milliseconds | None = None
    encode_ms: Milliseconds | None = Field(default=None, description="Of the whole micro-batch.")
    search_ms: Milliseconds | None = Field(default=None, description="Of the whole search batch.")
    assess_ms: Milliseconds | None = Field(default=None, description="In all heads, of the whole search batch.")
    batch_size: int | None = Field(default=None, ge=1)


class ErrorV1(Outgoing):
    """
    Why there is no judgement.
    """

    code: ErrorCode
    error_class: ErrorClass = Field(alias="class", serialization_alias="class")
    retryable: bool
    stage: Stage
    detail: str = Field(max_length=512, description="For people; never a signed URL's query, never image bytes.")
    http_status: int | None = None
