"""
Every setting, its type, its bounds and its default. Values only: nothing here opens a file or reads the environment.

The defaults are those of ``config/worker.toml``, where each is explained; a test holds the two together.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr

from worker.settings.failing import RetrySettings, StormSettings
from worker.settings.hmac_keys import fault_of
from worker.settings.images import DecodeSettings, FetchSettings
from worker.settings.operations import (
    DeletionsSettings,
    EmbeddingsSettings,
    HttpSettings,
    ShadowSettings,
    TracingSettings,
)
from worker.settings.section import FilePath, Name, Seconds, SecretUrl, Section, Topic
from worker.settings.tls import tls_contradictions
from worker.shipped import STARTER


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
    retry: Topic = "image-uploads-retry"
    shadow_verdicts: Topic = "moderation-verdicts-shadow"
    embeddings: Topic = "image-embeddings"
    bank_control: Topic = "bank-control"
    deletions: Topic = "image-deletions"
    feedback: Topic = "image-feedback"

    def retries(self, count: int) -> tuple[str, ...]:
        """
        The retry topics of so many waits, the one with the shortest wait first.
        """
        return tuple(f"{self.retry}-{number}" for number in range(1, count + 1))

    def _contradictions(self) -> Iterator[str]:
        names = {role: str(name) for role, name in dict(self).items()}
        for twice in sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
            roles = " and ".join(role for role, name in names.items() if name == twice)
            yield f"{roles} must be different topics, found {twice} for each"


class KafkaSettings(Section):
    """
    How to reach Kafka, and what is promised about delivery.
    """

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: FilePath | None = None
    ssl_certfile: FilePath | None = None
    ssl_keyfile: FilePath | None = None
    ssl_key_password: SecretStr | None = None
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

    def _contradictions(self) -> Iterator[str]:
        if "@" in self.bootstrap_servers:
            yield "bootstrap_servers takes HOST:PORT only; who connects is said by sasl_username and sasl_password"
        protocol, sasl = self.security_protocol, self.sasl_mechanism is not None
        if protocol.startswith("SASL_") != sasl:
            yield f"security_protocol {protocol} {'does not use' if sasl else 'needs'} sasl_mechanism"
        if sasl and (self.sasl_username is None or self.sasl_password is None):
            yield "sasl_mechanism needs sasl_username and sasl_password"
        yield from tls_contradictions(self, tls=protocol.endswith("SSL"), why=f"security_protocol {protocol}")
        if self.session_timeout_s >= self.max_poll_interval_s:
            yield (
                f"session_timeout_s ({self.session_timeout_s}) must be below max_poll_interval_s "
                f"({self.max_poll_interval_s})"
            )
        if self.transaction_interval_s >= self.transaction_timeout_s:
            yield (
                f"transaction_interval_s ({self.transaction_interval_s}) must be below transaction_timeout_s "
                f"({self.transaction_timeout_s})"
            )


class RedisSettings(Section):
    """
    The cache of embeddings; without it every upload is encoded.
    """

    enabled: bool = True
    url: SecretUrl = SecretStr("redis://localhost:6379/0")
    ssl_cafile: FilePath | None = None
    ssl_certfile: FilePath | None = None
    ssl_keyfile: FilePath | None = None
    ssl_key_password: SecretStr | None = None
    namespace: Name = "default"
    hmac_keys: SecretStr | None = None
    hmac_keys_file: FilePath | None = None
    connect_timeout_s: Seconds = 0.2
    timeout_s: Seconds = 0.05
    ttl_s: Annotated[int, Field(ge=60)] = 30 * 24 * 3600
    failure_ttl_s: Annotated[int, Field(ge=600, le=24 * 3600)] = 3600
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_open_s: Seconds = 10.0

    def _contradictions(self) -> Iterator[str]:
        scheme = self.url.get_secret_value().partition("://")[0]
        yield from tls_contradictions(self, tls=scheme == "rediss", why="a url that is not rediss://")
        if self.hmac_keys is not None and self.hmac_keys_file is not None:
            yield "hmac_keys and hmac_keys_file name the same thing: give one of the two"
        fault = None if self.hmac_keys is None else fault_of(self.hmac_keys.get_secret_value())
        if fault is not None:
            yield f"hmac_keys {fault}"


ENCODER_PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}


class EncoderSettings(Section):
    """
    The frozen vision encoder: the starter that ships, a registry tag, a hub id, or a local checkpoint with its hash.
    """

    model: Annotated[str, Field(min_length=1)] = STARTER
    checkpoint: FilePath | None = None
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    backend: Literal["torch", "onnxruntime", "openvino"] = "torch"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    export_dir: FilePath | None = None
    threads: Annotated[int, Field(ge=0)] = 0
    instances: Annotated[int, Field(ge=0, le=64)] = 0
    cuda_graphs: bool = True
    jpeg_oversampling: Annotated[int, Field(ge=0, le=8)] = 0
    jpeg_decoder: Literal["pillow", "device"] = "pillow"
    resize: Literal["pillow", "torch"] = "pillow"
    offline: bool = False

    def _contradictions(self) -> Iterator[str]:
        local = f"model {self.model!r}" if self.checkpoint is None else f"checkpoint {str(self.checkpoint)!r}"
        if self.checkpoint_sha256 is None and (self.checkpoint is not None or self.model.startswith("local-dir:")):
            yield f"{local} is local and needs checkpoint_sha256 (sha256sum FILE prints it)"
        if self.backend != "torch" and self.device.startswith("cuda"):
            yield f"backend {self.backend} computes on the CPU only, found device {self.device}: set cpu or auto"
        if self.jpeg_decoder == "device" and self.backend != "torch":
            yield f'jpeg_decoder = "device" needs backend torch, found {self.backend}'
        if self.jpeg_decoder == "device" and self.jpeg_oversampling:
            yield 'jpeg_decoder = "device" decodes JPEGs whole: set jpeg_oversampling = 0'
        if self.precision not in ("auto", *ENCODER_PRECISIONS[self.backend]):
            has = ", ".join(ENCODER_PRECISIONS[self.backend])
            yield f"backend {self.backend} has the precisions {has}, found {self.precision}"


class BatchSettings(Section):
    """
    When a micro-batch closes: full, nobody else on the way, or its oldest picture has waited long enough.
    """

    size: Annotated[int, Field(ge=1, le=4096)] = 32
    deadline_ms: Annotated[float, Field(ge=0, le=10_000)] = 20.0


class BankSettings(Section):
    """
    The references, and how they are searched; without path and releases, those that ship with the starter encoder.
    """

    path: FilePath | None = None
    quarantine_path: FilePath | None = None
    releases: Annotated[str, Field(min_length=1)] | None = None
    s3_profile: Name | None = None
    activated_by: Literal["pointer", "topic"] = "pointer"
    look_every_s: Seconds = 5.0
    canary_agreement: Annotated[float, Field(ge=0, le=1)] = 1.0
    require_canaries: bool = False
    trusted_keys: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    index: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    flat_scan: Literal["auto", "single", "half"] = "auto"
    search_threads: Annotated[int, Field(ge=0)] = 0
    hnsw_links: Annotated[int, Field(ge=4, le=128)] = 32
    hnsw_ef_search: Annotated[int, Field(ge=1)] = 64
    ivf_lists: Annotated[int, Field(ge=1)] = 1024
    ivf_probes: Annotated[int, Field(ge=1)] = 16

    def _contradictions(self) -> Iterator[str]:
        if self.path is not None and self.releases is not None:
            yield "path names one bank and releases a place of many: give one of the two"
        if self.quarantine_path is not None and self.releases is not None:
            yield "quarantine_path is for one bank; of releases leave references out with `touchstone bank disable`"
        if self.s3_profile is not None and not (self.releases or "").startswith("s3://"):
            yield "s3_profile is for releases in an s3:// place"
        if self.ivf_probes > self.ivf_lists:
            yield f"ivf_probes ({self.ivf_probes}) must not exceed ivf_lists ({self.ivf_lists})"


class PolicySettings(Section):
    """
    Where the thresholds and actions stand.
    """

    path: FilePath = Path("config/policy.toml")


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
    retry: RetrySettings = RetrySettings()
    storm: StormSettings = StormSettings()
    encoder: EncoderSettings = EncoderSettings()
    batch: BatchSettings = BatchSettings()
    bank: BankSettings = BankSettings()
    policy: PolicySettings = PolicySettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    shadow: ShadowSettings = ShadowSettings()
    deletions: DeletionsSettings = DeletionsSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()
    flow: FlowSettings = FlowSettings()
    log: LogSettings = LogSettings()

    @property
    def retry_topics(self) -> tuple[str, ...]:
        """
        The topics of uploads that are put off, one for each of ``retry.delays_s``.
        """
        return self.kafka.topics.retries(len(self.retry.delays_s))

    def _contradictions(self) -> Iterator[str]:
        if taken := sorted({str(name) for name in dict(self.kafka.topics).values()} & set(self.retry_topics)):
            yield f"kafka.topics.retry names the retry topics {', '.join(self.retry_topics)}; {taken[0]} is taken"
        if self.batch.size > self.flow.max_in_flight:
            yield (
                f"batch.size ({self.batch.size}) must not exceed flow.max_in_flight ({self.flow.max_in_flight}): "
                "a batch could never fill"
            )
        if self.encoder.jpeg_decoder == "device" and not self.decode.may_decode_on_device:
            yield (
                'encoder.jpeg_decoder = "device" has the bytes of uploaders read by a library in the worker\'s own '
                "process: set decode.unisolated_device = true to accept that (SECURITY.md says what it means), or "
                'encoder.jpeg_decoder = "pillow"'
            )
        if self.bank.s3_profile is not None and self.bank.s3_profile not in self.fetch.s3:
            yield f"bank.s3_profile names {self.bank.s3_profile!r}, fetch.s3 has {sorted(self.fetch.s3)}"
        if self.fetch.max_image_bytes > self.flow.max_in_flight_bytes:
            yield (
                f"fetch.max_image_bytes ({self.fetch.max_image_bytes}) must not exceed flow.max_in_flight_bytes "
                f"({self.flow.max_in_flight_bytes}): one image could never be taken"
            )
        worst_step_s = self.fetch.total_timeout_s + self.kafka.publish_timeout_s
        if worst_step_s >= self.kafka.max_poll_interval_s:
            yield (
                f"fetch.total_timeout_s + kafka.publish_timeout_s ({worst_step_s}) must be below "
                f"kafka.max_poll_interval_s ({self.kafka.max_poll_interval_s}): the group would expel the worker"
            )
        if self.kafka.static_membership and self.service.instance_id is None:
            yield "kafka.static_membership needs service.instance_id, the same after each restart"
