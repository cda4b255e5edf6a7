"""
``image.feedback.v1``: a person looked at an image and says what it is. Collected for review, never put into a bank.
"""

from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import AwareDatetime, Field, WithJsonSchema

from schemas.wire import Incoming, Line

TYPE = "image.feedback.v1"

ReviewerRole = Literal["moderator", "expert", "uploader", "reporter", "auditor"]

# Open to roles that a later minor version adds, as all our enumerations are.
_OPEN_ROLE = WithJsonSchema({"anyOf": [{"type": "string", "enum": list(get_args(ReviewerRole))}, {"type": "string"}]})


class ImageFeedbackV1(Incoming):
    """
    One person's word on one verdict.
    """

    verdict_id: UUID = Field(strict=False, description="Of the verdict that was reviewed.")
    label: Line = Field(min_length=1, max_length=64, description="What it is: one of the bank's labels, or `unsure`.")
    reviewer_role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$"), _OPEN_ROLE]
    generator: Line | None = Field(default=None, max_length=128, description="Which generator, where it is known.")
    reviewed_at: AwareDatetime | None = None
    note: str | None = Field(default=None, max_length=2048, description="For people; never logged.")
