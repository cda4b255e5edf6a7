"""
``image.uploaded.v1``: a platform says that a user uploaded an image, and where its bytes are.
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator
from pydantic_core import to_json

from schemas.wire import Incoming, Line, Sha256

TYPE = "image.uploaded.v1"
MAX_INLINE_BASE64_CHARS = 349_528  # 256 KiB of image, as base64
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTES_BYTES = 4096

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class InlineRef(Incoming):
    """
    The image itself, base64, for small images (avatars): at most 256 KiB.
    """

    kind: Literal["inline"]
    base64: str = Field(min_length=1, max_length=MAX_INLINE_BASE64_CHARS)


class HttpsRef(Incoming):
    """
    An ``https://`` address; its query may be a signature and is never logged.
    """

    kind: Literal["https"]
    url: str = Field(pattern=r"^https?://", max_length=4096)


class S3Ref(Incoming):
    """
    An object of an S3-compatible store; endpoint and credentials come from the worker's configuration, never from here.
    """

    kind: Literal["s3"]
    bucket: str = Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]+$")
    key: str = Field(min_length=1, max_length=1024)
    version_id: str | None = Field(default=None, max_length=1024)
    profile: Name | None = Field(default=None, description="Name of a configured credential profile; never a secret.")


class FileRef(Incoming):
    """
    A file below the one root that the worker is configured with; without such a root, refused.
    """

    kind: Literal["file"]
    path: str = Field(min_length=1, max_length=4096)


ImageRef = Annotated[InlineRef | HttpsRef | S3Ref | FileRef, Field(discriminator="kind")]


class UploadedImage(Incoming):
    """
    Where the bytes are, and what the producer claims about them.
    """

    ref: ImageRef
    sha256: Sha256 | None = Field(
        default=None, description="Claimed hash of the bytes: compared after the fetch, never trusted."
    )
    byte_length: int | None = Field(default=None, ge=1, description="Claimed size, for early refusal; never trusted.")
    media_type: str | None = Field(default=None, max_length=127, description="Claimed type; the content decides.")
    expires_at: AwareDatetime | None = Field(default=None, description="After this the reference is dead: no fetch.")


class Declared(Incoming):
    """
    What the uploader or the platform says about the origin; echoed into the verdict, never decisive here.
    """

    ai_disclosed: bool | None = None
    digital_source_type: str | None = Field(default=None, max_length=256, description="IPTC digital source type URI.")


class Context(Incoming):
    """
    Where the image will be shown; chooses the surface of the policy.
    """

    surface: Name | None = None
    created_at: AwareDatetime | None = Field(default=None, description="When the content was made; echoed.")


class ImageUploadedV1(Incoming):
    """
    One upload. ``content_id`` with ``revision`` names the asset; the Kafka key orders its uploads.
    """

    content_id: Line = Field(min_length=1, max_length=256)
    revision: int = Field(default=0, ge=0, lt=2**63)
    tenant_id: Annotated[Line, Field(min_length=1, max_length=64)] | None = None
    image: UploadedImage
    declared: Declared | None = None
    context: Context | None = None
    attributes: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        description=f"Echoed into the verdict, never read or logged; at most {MAX_ATTRIBUTES_BYTES} bytes as JSON.",
    )

    @model_validator(mode="after")
    def _attributes_are_small(self) -> Self:
        if self.attributes:
            size = len(to_json(self.attributes))
            if size > MAX_ATTRIBUTES_BYTES:
                raise ValueError(f"attributes: found {size} bytes as JSON, expected at most {MAX_ATTRIBUTES_BYTES}")
        return self
