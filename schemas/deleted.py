"""
``image.deleted.v1``: a platform says that a content is gone, and that what was kept of its image must be forgotten.
"""

from pydantic import AwareDatetime, Field

from schemas.wire import Incoming, Sha256

TYPE = "image.deleted.v1"


class ImageDeletedV1(Incoming):
    """
    One content that is gone, in all of its revisions.

    Without ``sha256`` the bytes that the content had are looked up where the worker keeps them by content id.
    """

    content_id: str = Field(min_length=1, max_length=1024, description="As in the upload event.")
    tenant_id: str | None = Field(default=None, max_length=256, description="As in the upload event.")
    sha256: tuple[Sha256, ...] = Field(
        default=(), max_length=64, description="Hashes of the bytes, where the platform knows them."
    )
    deleted_at: AwareDatetime | None = None
