"""
Where image bytes may come from, and what counts as an image: every setting of fetching and decoding.

As in ``tree.py``: the defaults are those of ``config/worker.toml``, where each is explained.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from worker.settings.section import FilePath, Name, Seconds, Section


class S3Profile(Section):
    """
    One S3-compatible store. Without keys, boto3's own chain (environment, instance role) is used.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    buckets: tuple[str, ...] = ()

    def _contradictions(self) -> Iterator[str]:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            yield "access_key_id and secret_access_key go together: give both or neither"


class FetchSettings(Section):
    """
    Where image bytes may come from, and how much of them.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 16
    max_image_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    connect_timeout_s: Seconds = 2.0
    read_timeout_s: Seconds = 5.0
    total_timeout_s: Seconds = 15.0
    max_redirects: Annotated[int, Field(ge=0, le=10)] = 3
    allow_http: bool = False
    allow_private_addresses: bool = False
    ca_file: FilePath | None = None
    file_root: FilePath | None = None
    s3_default_profile: Name | None = None
    s3: dict[Name, S3Profile] = Field(default_factory=dict)

    def _contradictions(self) -> Iterator[str]:
        if self.total_timeout_s < max(self.connect_timeout_s, self.read_timeout_s):
            yield (
                f"total_timeout_s ({self.total_timeout_s}) must not be below connect_timeout_s "
                f"({self.connect_timeout_s}) or read_timeout_s ({self.read_timeout_s})"
            )
        if self.s3_default_profile is not None and self.s3_default_profile not in self.s3:
            yield f"s3_default_profile names {self.s3_default_profile!r}, configured are {sorted(self.s3)}"


class DecodeSettings(Section):
    """
    What counts as an image, and how large one may be.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 2
    formats: tuple[Literal["JPEG", "PNG", "WEBP", "GIF", "AVIF"], ...] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
    max_pixels: Annotated[int, Field(ge=1024)] = 40_000_000
    perceptual_hash: bool = True
    credentials: bool = True
    trust_anchors: FilePath | None = None

    def _contradictions(self) -> Iterator[str]:
        if self.trust_anchors is not None and not self.credentials:
            yield "trust_anchors is of no use without credentials"
