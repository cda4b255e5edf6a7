"""
Ids are those of the JSON that they were ever made of, whatever the texts are.
"""

import json
from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import NAMESPACE, DecisionVersions, bare_event_id, dead_letter_id, decision_id, verdict_id

TEXTS = st.text(st.characters(codec="utf-16"), max_size=40)
VERSIONS = st.builds(DecisionVersions, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
NUMBERS = st.integers(min_value=0, max_value=2**63)


def id_of(*parts: object) -> UUID:
    """
    The id of these parts as the standard library writes them.
    """
    return uuid5(NAMESPACE, json.dumps(parts, separators=(",", ":"), ensure_ascii=True))


def listed(versions: DecisionVersions) -> list[str]:
    """
    The versions in the order in which they stand in an id.
    """
    found = versions
    return [found.encoder, found.preprocess, found.bank, found.index, found.policy, found.schema_major]


@given(source=TEXTS, event=TEXTS, versions=VERSIONS, mode=TEXTS, run=st.none() | TEXTS)
def test_verdict_ids(source: str, event: str, versions: DecisionVersions, mode: str, run: str | None) -> None:
    """
    A verdict's id is that of the event, the mode, the run and the versions.
    """
    expected = id_of("verdict", source, event, mode, run, listed(versions))

    assert expected == verdict_id(source, event, versions, mode=mode, run_id=run)


@given(tenant=st.none() | TEXTS, content=TEXTS, revision=NUMBERS, versions=VERSIONS, surface=TEXTS, evidence=TEXTS)
def test_decision_ids(
    *, tenant: str | None, content: str, revision: int, versions: DecisionVersions, surface: str, evidence: str
) -> None:
    """
    A decision's id is that of the content, the surface, what it rests on and the versions.
    """
    expected = id_of("decision", [tenant, content, revision], surface, evidence, listed(versions))

    assert expected == decision_id((tenant, content, revision), versions, surface=surface, evidence=evidence)


@given(topic=TEXTS, partition=NUMBERS, offset=NUMBERS)
def test_ids_of_records(topic: str, partition: int, offset: int) -> None:
    """
    A record without an envelope, and the dead letter of any, are who they are by where they lie.
    """
    assert bare_event_id(topic, partition, offset) == id_of("bare_event", topic, partition, offset)
    assert dead_letter_id(topic, partition, offset) == id_of("dead_letter", topic, partition, offset)
