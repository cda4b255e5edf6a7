"""
The two ids of a verdict: pure functions, so that duplicates collapse and replays compare.
"""

import json
from dataclasses import dataclass
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1d2b1e-6a0c-5c5e-9d0a-7a5d3c1e4b20")
"""Fixed for ever: changing it changes every id."""


@dataclass(frozen=True, slots=True)
class DecisionVersions:
    """
    The versions that a judgement depends on; each a sha256 in hex, but for the major of the schema.
    """

    encoder: str
    preprocess: str
    bank: str
    policy: str
    schema_major: str


def _uuid(*parts: object) -> UUID:
    return uuid5(NAMESPACE, json.dumps(parts, separators=(",", ":"), ensure_ascii=True))


def _versions(versions: DecisionVersions) -> list[str]:
    return [versions.encoder, versions.preprocess, versions.bank, versions.policy, versions.schema_major]


def verdict_id(
    event_source: str, event_id: str, versions: DecisionVersions, *, mode: str = "live", run_id: str | None = None
) -> UUID:
    """
    The id of the verdict on one event: the same however often the event is delivered under these versions.
    """
    return _uuid("verdict", event_source, event_id, mode, run_id, _versions(versions))


def decision_id(
    content: tuple[str | None, str, int], versions: DecisionVersions, *, surface: str, evidence: str
) -> UUID:
    """
    The id of the judgement on one content: the same for re-uploads, cache hits and replays.

    ``content`` is (tenant_id, content_id, revision); ``evidence`` is the sha256 of the bytes or, without bytes, the
    error code.
    """
    return _uuid("decision", list(content), surface, evidence, _versions(versions))


def dead_letter_id(topic: str, partition: int, offset: int) -> UUID:
    """
    The id of the dead letter of one record.
    """
    return _uuid("dead_letter", topic, partition, offset)


def bare_event_id(topic: str, partition: int, offset: int) -> UUID:
    """
    The event id of a record without a CloudEvents envelope: where it lies is who it is.
    """
    return _uuid("bare_event", topic, partition, offset)
