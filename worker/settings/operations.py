"""
The settings of what surrounds the judging: kept embeddings, shadow runs, deletions, endpoints, traces. Values only.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from worker.settings.section import FilePath, Name, Seconds, Section


class EmbeddingsSettings(Section):
    """
    Whether what was measured of every image is kept, so that a replay needs neither its bytes nor the encoder.
    """

    keep: Literal["none", "topic", "file"] = "none"
    path: FilePath | None = None
    retention_s: Annotated[int, Field(ge=60)] = 90 * 24 * 3600

    def _contradictions(self) -> Iterator[str]:
        if (self.keep == "file") != (self.path is not None):
            yield f"keep = {self.keep!r} {'needs' if self.keep == 'file' else 'does not use'} path"


class ShadowSettings(Section):
    """
    A candidate bank, judgement or policy that judges a share of the uploads beside the live one, to a topic of its own.
    """

    enabled: bool = False
    name: Name = "shadow"
    bank_path: FilePath | None = None
    judgement_path: FilePath | None = None
    policy_path: FilePath | None = None
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1024

    def _contradictions(self) -> Iterator[str]:
        if self.enabled and self.bank_path is None and self.judgement_path is None and self.policy_path is None:
            yield "enabled needs a candidate: bank_path, judgement_path or policy_path"
        if self.bank_path is not None and self.judgement_path is not None:
            yield "bank_path brings its own judgement, judgement_path is one over the live bank: give one of the two"


class DeletionsSettings(Section):
    """
    Whether image.deleted.v1 events are read, and what was kept of these images forgotten.
    """

    enabled: bool = False


class HttpSettings(Section):
    """
    Where health, metrics and versions can be asked for.
    """

    enabled: bool = False
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    stalled_after_s: Seconds = 30.0


class TracingSettings(Section):
    """
    Spans. The trace context of uploads is carried to their verdicts whatever is set here.
    """

    exporter: Literal["none", "console", "otlp"] = "none"
    endpoint: Annotated[str, Field(min_length=1)] | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0

    def _contradictions(self) -> Iterator[str]:
        if self.endpoint is not None and self.exporter != "otlp":
            yield f"endpoint is of no use with exporter {self.exporter!r}"
