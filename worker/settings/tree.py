"""
Every setting, its type, its bounds and its default. Values only: nothing here opens a file or reads the environment.

The defaults are those of ``config/worker.toml``, where each is explained; a test holds the two together.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """
    A frozen part of the tree; an unknown key is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceSettings(Section):
    """
    Who this worker is.
    """

    name: Name = "touchstone"
    instance_id: Name | None = None


class TopicSettings(Section):
    """
    The topics that the worker reads and writes.
    """

    uploads: Topic = "image-uploads"
    verdicts: Topic = "moderation-verdicts"
    dead_letters: Topic = "moderation-dead-letters"

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if len({self.uploads, self.verdicts, self.dead_letters}) < 3:  # noqa: PLR2004 - three topics
            raise ValueError("uploads, verdicts and dead_letters must be three different topics")
        return self


class KafkaSettings(Section):
    """
    How to reach Kafka, and what is promised about delivery.
    """

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    group_id: Annotated[str, Field(min_length=1)] = "touchstone"
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    static_membership: bool = False
    session_timeout_s: Seconds = 45.0
    max_poll_interval_s: Seconds = 300.0
    commit_interval_s: Seconds = 1.0
    publish_timeout_s: Seconds = 60.0
    transaction_timeout_s: Seconds = 15.0
    transaction_interval_s: Seconds = 0.2
    transaction_max_messages: Annotated[int, Field(ge=1)] = 500
    max_event_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    topics: TopicSettings = TopicSettings()

    @model_validator(mode="after")
    def _related_limits(self) -> Self:
        if self.sasl_mechanism is not None and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError("sasl_mechanism needs sasl_username and sasl_password")
        if self.session_timeout_s >= self.max_poll_interval_s:
            raise ValueError(
                f"session_timeout_s ({self.session_timeout_s}) must be below max_poll_interval_s "
                f"({self.max_poll_interval_s})"
            )
        if self.transaction_interval_s >= self.transaction_timeout_s:
            raise ValueError(
                f"transaction_interval_s ({self.transaction_interval_s}) must be below transaction_timeout_s "
                f"({self.transaction_timeout_s})"
            )
        return self


class RedisSettings(Section):
    """
    The cache of embeddings; without it every upload is encoded.
    """

    enabled: bool = True
    url: SecretStr = SecretStr("redis://localhost:6379/0")
    namespace: Name = "default"
    connect_timeout_s: Seconds = 0.2
    timeout_s: Seconds = 0.05
    ttl_s: Annotated[int, Field(ge=60)] = 30 * 24 * 3600
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_open_s: Seconds = 10.0


class S3Profile(Section):
    """
    One S3-compatible store. Without keys, boto3's own chain (environment, instance role) is used.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    buckets: tuple[str, ...] = ()


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
    ca_file: Path | None = None
    file_root: Path | None = None
    s3_default_profile: Name | None = None
    s3: dict[str, S3Profile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _related_limits(self) -> Self:
        if self.total_timeout_s < max(self.connect_timeout_s, self.read_timeout_s):
            raise ValueError(
                f"total_timeout_s ({self.total_timeout_s}) must not be below connect_timeout_s "
                f"({self.connect_timeout_s}) or read_timeout_s ({self.read_timeout_s})"
            )
        if self.s3_default_profile is not None and self.s3_default_profile not in self.s3:
            raise ValueError(f"s3_default_profile names {self.s3_default_profile!r}, configured are {sorted(self.s3)}")
        return self


class DecodeSettings(Section):
    """
    What counts as an image, and how large one may be.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 2
    formats: tuple[Literal["JPEG", "PNG", "WEBP", "GIF", "AVIF"], ...] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
    max_pixels: Annotated[int, Field(ge=1024)] = 40_000_000
    perceptual_hash: bool = True


class EncoderSettings(Section):
    """
    The frozen vision encoder: a registry tag, a hub id, or a local checkpoint with its hash.
    """

    model: Annotated[str, Field(min_length=1)] = "ViT-L-14-quickgelu/openai"
    checkpoint: Path | None = None
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    offline: bool = False

    @model_validator(mode="after")
    def _checkpoint_is_verified(self) -> Self:
        local = self.checkpoint is not None or self.model.startswith("local-dir:")
        if local and self.checkpoint_sha256 is None:
            raise ValueError("a local checkpoint needs checkpoint_sha256 (sha256sum FILE prints it)")
        return self


class BatchSettings(Section):
    """
    When a micro-batch closes: full, or its oldest picture has waited long enough.
    """

    size: Annotated[int, Field(ge=1, le=4096)] = 32
    deadline_ms: Annotated[float, Field(ge=0, le=10_000)] = 20.0


class BankSettings(Section):
    """
    The references, and how they are searched.
    """

    path: Path = Path("bank")
    index: Literal["flat", "hnsw", "ivf"] = "flat"
    hnsw_links: Annotated[int, Field(ge=4, le=128)] = 32
    hnsw_ef_search: Annotated[int, Field(ge=1)] = 64
    ivf_lists: Annotated[int, Field(ge=1)] = 1024
    ivf_probes: Annotated[int, Field(ge=1)] = 16

    @model_validator(mode="after")
    def _probes_fit(self) -> Self:
        if self.ivf_probes > self.ivf_lists:
            raise ValueError(f"ivf_probes ({self.ivf_probes}) must not exceed ivf_lists ({self.ivf_lists})")
        return self


class PolicySettings(Section):
    """
    Where the thresholds and actions stand.
    """

    path: Path = Path("config/policy.toml")


class FlowSettings(Section):
    """
    How much may be under way at once, and how the worker stops.
    """

    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 512
    max_in_flight_bytes: Annotated[int, Field(ge=1_048_576)] = 512 * 1024 * 1024
    resume_below: Annotated[float, Field(gt=0, le=1)] = 0.75
    recent_embeddings: Annotated[int, Field(ge=1)] = 4096
    drain_timeout_s: Seconds = 25.0


class LogSettings(Section):
    """
    How the log looks.
    """

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    """
    All of it.
    """

    service: ServiceSettings = ServiceSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    fetch: FetchSettings = FetchSettings()
    decode: DecodeSettings = DecodeSettings()
    encoder: EncoderSettings = EncoderSettings()
    batch: BatchSettings = BatchSettings()
    bank: BankSettings = BankSettings()
    policy: PolicySettings = PolicySettings()
    flow: FlowSettings = FlowSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _related_limits(self) -> Self:
        if self.batch.size > self.flow.max_in_flight:
            raise ValueError(
                f"batch.size ({self.batch.size}) must not exceed flow.max_in_flight ({self.flow.max_in_flight}): "
                "a batch could never fill"
            )
        if self.fetch.max_image_bytes > self.flow.max_in_flight_bytes:
            raise ValueError(
                f"fetch.max_image_bytes ({self.fetch.max_image_bytes}) must not exceed flow.max_in_flight_bytes "
                f"({self.flow.max_in_flight_bytes}): one image could never be taken"
            )
        worst_step_s = self.fetch.total_timeout_s + self.kafka.publish_timeout_s
        if worst_step_s >= self.kafka.max_poll_interval_s:
            raise ValueError(
                f"fetch.total_timeout_s + kafka.publish_timeout_s ({worst_step_s}) must be below "
                f"kafka.max_poll_interval_s ({self.kafka.max_poll_interval_s}): the group would expel the worker"
            )
        if self.kafka.static_membership and self.service.instance_id is None:
            raise ValueError("kafka.static_membership needs service.instance_id, the same after each restart")
        return self
