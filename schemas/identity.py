"""
The ids of our events: pure functions, so that duplicates collapse and replays compare.
"""

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1d2b1e-6a0c-5c5e-9d0a-7a5d3c1e4b20")
"""Fixed for ever: changing it changes every id."""


@dataclass(frozen=True, slots=True)
class DecisionVersions:
    """
    The versions that a judgement depends on: sha256 in hex, but for the index and the major of the schema.

    ``index`` is the kind of index, with its parameters, in which the bank is searched: an approximate one can miss a
    neighbour that an exact one finds.
    """

    encoder: str
    preprocess: str
    bank: str
    index: str
    policy: str
    schema_major: str


_QUOTED: Final = json.encoder.encode_basestring_ascii


def _uuid(*parts: str) -> UUID:
    """
    The id of these parts, each JSON already, as a JSON array without blanks.

    Put together here: setting the standard library's encoder up for a few texts takes longer than all else of an id.
    """
    return uuid5(NAMESPACE, _array(parts))


def _array(parts: Iterable[str]) -> str:
    return f"[{','.join(parts)}]"


def _text(text: str | None) -> str:
    return "null" if text is None else _QUOTED(text)


@lru_cache(maxsize=64)  # all verdicts of a run have the same
def _versions(versions: DecisionVersions) -> str:
    return _array(map(_text, astuple(versions)))


def verdict_id(
    event_source: str, event_id: str, versions: DecisionVersions, *, mode: str = "live", run_id: str | None = None
) -> UUID:
    """
    The id of the verdict on one event: the same however often the event is delivered under these versions.

    Where verdicts are delivered at least once and a transient failure was published just before a crash, the second
    delivery may answer otherwise under the same id; the later one is the better informed.
    """
    event = map(_text, ("verdict", event_source, event_id, mode, run_id))
    return _uuid(*event, _versions(versions))


def decision_id(
    content: tuple[str | None, str, int], versions: DecisionVersions, *, surface: str, evidence: str
) -> UUID:
    """
    The id of the judgement on one content: the same for re-uploads, cache hits and replays.

    ``content`` is (tenant_id, content_id, revision); ``evidence`` comes from ``evidence_of``.
    """
    tenant_id, content_id, revision = content
    named = _array([_text(tenant_id), _text(content_id), str(revision)])
    return _uuid(_text("decision"), named, _text(surface), _text(evidence), _versions(versions))


def evidence_of(sha256: str | None, error_code: str | None) -> str:
    """
    What a decision rests on: the sha256 of the bytes, an error code, or both where fetched bytes could not be judged.

    Raises ``ValueError`` when there is neither.
    """
    parts = [part for part in (sha256, error_code) if part is not None]
    if not parts:
        raise ValueError("a decision rests on bytes or on an error; found neither")
    return "/".join(parts)


def dead_letter_id(topic: str, partition: int, offset: int) -> UUID:
    """
    The id of the dead letter of one record.
    """
    return _uuid(_text("dead_letter"), _text(topic), str(partition), str(offset))


def bare_event_id(topic: str, partition: int, offset: int) -> UUID:
    """
    The event id of a record without a CloudEvents envelope: where it lies is who it is.

    A topic that is deleted and made again starts over at offset 0, and so do these ids.
    """
    return _uuid(_text("bare_event"), _text(topic), str(partition), str(offset))
