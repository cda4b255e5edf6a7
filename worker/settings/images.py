"""
Where image bytes may come from, and what counts as an image: every setting of fetching and decoding.

As in ``tree.py``: the defaults are those of ``config/worker.toml``, where each is explained.
"""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr

from worker.settings.host_patterns import HostAndPortPattern, HostPattern, covers_at, overlap_at
from worker.settings.section import BESIDE_SECRET, FilePath, Name, Seconds, Section

_OUR_HEADERS: Final = frozenset({"host", "accept-encoding", "user-agent", "connection", "content-length", "te"})
_SENDABLE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class S3Profile(Section):
    """
    One S3-compatible store. Without keys, boto3's own chain (environment, instance role) is used.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    buckets: tuple[str, ...] = ()
    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    def _contradictions(self) -> Iterator[str]:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            yield "access_key_id and secret_access_key go together: give both or neither"


class HttpProfile(Section):
    """
    What is sent to some web hosts so that they let the worker read: a header, a bearer token, or both.
    """

    hosts: Annotated[tuple[HostAndPortPattern, ...], Field(min_length=1)]
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = Field(None, json_schema_extra=BESIDE_SECRET)
    value: SecretStr | None = None
    bearer_token: SecretStr | None = None

    def _contradictions(self) -> Iterator[str]:
        if (self.header is None) != (self.value is None):
            yield "header and value go together: give both or neither"
        if self.value is None and self.bearer_token is None:
            yield "give a header with its value, or a bearer_token: there is nothing to send"
        if self.header is not None and self.header.lower() in _OUR_HEADERS:
            yield f"header {self.header} is the worker's own; name another"
        if self.header is not None and self.header.lower() == "authorization" and self.bearer_token is not None:
            yield "header Authorization and bearer_token are the same header: give one of them"
        for name in ("value", "bearer_token"):
            secret: SecretStr | None = getattr(self, name)
            if secret is not None and not _SENDABLE.fullmatch(secret.get_secret_value()):
                yield f"{name} must be printable ASCII without a space or a line break at either end"


class FetchSettings(Section):
    """
    Where image bytes may come from, and how much of them.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 16
    max_image_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    connect_timeout_s: Seconds = 2.0
    read_timeout_s: Seconds = 5.0
    total_timeout_s: Seconds = 15.0
    min_bytes_per_s: Annotated[int, Field(ge=0)] = 10_240
    slow_after_s: Seconds = 5.0
    max_redirects: Annotated[int, Field(ge=0, le=10)] = 3
    per_host_connections: Annotated[int, Field(ge=1, le=256)] = 12
    host_wait_s: Seconds = 2.0
    breaker_failures: Annotated[int, Field(ge=1)] = 10
    breaker_open_s: Seconds = 30.0
    allowed_hosts: tuple[HostPattern, ...] = ()
    own_hosts: tuple[HostPattern, ...] = ()
    allow_http: bool = False
    allow_private_addresses: bool = False
    ca_file: FilePath | None = None
    file_root: FilePath | None = None
    s3_default_profile: Name | None = None
    s3: dict[Name, S3Profile] = Field(default_factory=dict)
    http: dict[Name, HttpProfile] = Field(default_factory=dict)

    def names_host(self, host: str, port: int = 443) -> bool:
        """
        Whether the operator names this very host: as the platform's own, as allowed, or for credentials at this port.

        One that only a ``*.`` pattern covers is named by nobody: an uploader may make up as many as they like.
        """
        if port in {80, 443} and host in {*self.own_hosts, *self.allowed_hosts}:
            return True
        named = (pattern for profile in self.http.values() for pattern in profile.hosts)
        return any(covers_at(pattern, host, port) for pattern in named if not pattern.startswith("*."))

    def _contradictions(self) -> Iterator[str]:
        if self.total_timeout_s < max(self.connect_timeout_s, self.read_timeout_s):
            yield (
                f"total_timeout_s ({self.total_timeout_s}) must not be below connect_timeout_s "
                f"({self.connect_timeout_s}) or read_timeout_s ({self.read_timeout_s})"
            )
        if whole := [pattern for pattern in self.own_hosts if pattern.startswith("*.")]:
            yield f"own_hosts names {whole[0]!r}: write each host out, for an uploader may make up names below one"
        if self.s3_default_profile is not None and self.s3_default_profile not in self.s3:
            yield f"s3_default_profile names {self.s3_default_profile!r}, configured are {sorted(self.s3)}"
        for (one, first), (other, second) in combinations(self.http.items(), 2):
            both = [host for host in first.hosts if any(overlap_at(host, named) for named in second.hosts)]
            if both:
                yield f"http.{one} and http.{other} both name hosts of {both[0]!r}: one host, one profile"


class DecodeSettings(Section):
    """
    What counts as an image, and how large one may be.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 2
    formats: tuple[Literal["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"], ...] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
    max_pixels: Annotated[int, Field(ge=1024)] = 40_000_000
    max_frames: Annotated[int, Field(ge=1, le=32)] = 8
    max_animation_pixels: Annotated[int, Field(ge=1024)] = 100_000_000
    grey_ground: bool = True
    perceptual_hash: bool = True
    credentials: bool = True
    trust_anchors: FilePath | None = None
    isolation: Literal["processes", "threads"] = "processes"
    timeout_s: Seconds = 10.0
    memory_bytes: Annotated[int, Field(ge=1 << 26)] = 1 << 31
    recycle_after: Annotated[int, Field(ge=1)] = 5000
    unisolated_device: bool = False
    device_bytes: Annotated[int, Field(ge=1 << 24)] = 1 << 29

    @property
    def may_decode_on_device(self) -> bool:
        """
        Whether uploaders' bytes may be decoded where nothing confines them.
        """
        return self.isolation == "threads" or self.unisolated_device

    def _contradictions(self) -> Iterator[str]:
        if self.trust_anchors is not None and not self.credentials:
            yield "trust_anchors is of no use without credentials"
