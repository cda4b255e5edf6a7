"""
How an upload was handled: when, how long each stage took, and what went wrong. Parts of a verdict.
"""

from typing import Literal

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
    attempts: int = Field(
        default=1,
        ge=1,
        description="How often the upload was taken up and failed, from retry topics included; tries in quick "
        "succession count as one.",
    )
    first_failed_at: AwareDatetime | None = Field(default=None, description="When it failed for the first time.")


class Audit(Outgoing):
    """
    What a statement of reasons asks (DSA, article 17): was it automated, and must a person look.
    """

    automated_detection: Literal[True] = True
    human_review_required: bool = Field(description="The recommended action is a review by a person.")
