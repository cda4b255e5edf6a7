"""
Ids never change: these literals were computed on the first day.
"""

from dataclasses import replace
from uuid import UUID

import pytest

from schemas.identity import DecisionVersions, bare_event_id, dead_letter_id, decision_id, evidence_of, verdict_id

VERSIONS = DecisionVersions(encoder="e", preprocess="p", bank="b", index="flat", policy="q", schema_major="1")


def test_ids_are_what_they_always_were() -> None:
    """
    Changing the namespace, the order or the encoding of the parts would change every id of every platform.
    """
    content = ("acme", "post-ä", 2)

    assert UUID("02705c92-0a91-5282-b614-357eaafec61a") == verdict_id("source", "id", VERSIONS)
    assert UUID("0b82e259-c8fd-5e05-9e7c-714d32588416") == verdict_id(
        "source", "id", VERSIONS, mode="replay", run_id="r1"
    )
    assert UUID("1a8d9eda-0007-5a40-835a-933faeec5463") == decision_id(content, VERSIONS, surface="post", evidence="9f")
    assert UUID("a724cf4c-f58f-581f-9246-4a49849e8832") == dead_letter_id("uploads", 3, 991)
    assert UUID("7eaa72f4-255e-5f9a-914a-b7123069b35e") == bare_event_id("uploads", 3, 991)


@pytest.mark.parametrize("changed", ["encoder", "preprocess", "bank", "index", "policy", "schema_major"])
def test_every_version_makes_another_id(changed: str) -> None:
    """
    Under another version of anything that a judgement depends on, both ids are others.
    """
    other = replace(VERSIONS, **{changed: "another"})
    content = (None, "post", 0)

    assert verdict_id("s", "i", VERSIONS) != verdict_id("s", "i", other)
    assert decision_id(content, VERSIONS, surface="x", evidence="9f") != decision_id(
        content, other, surface="x", evidence="9f"
    )


def test_neighbouring_parts_do_not_run_together() -> None:
    """
    ``("ab", "c")`` and ``("a", "bc")`` are different events.
    """
    assert verdict_id("ab", "c", VERSIONS) != verdict_id("a", "bc", VERSIONS)
    assert bare_event_id("uploads", 1, 11) != bare_event_id("uploads", 11, 1)


def test_a_decision_rests_on_bytes_or_on_an_error() -> None:
    """
    Bytes that were judged and bytes that could not be judged are different evidence; nothing at all is none.
    """
    assert evidence_of("9f", None) == "9f"
    assert evidence_of(None, "FETCH_DENIED") == "FETCH_DENIED"
    assert evidence_of("9f", "ENCODE_FAILED") == "9f/ENCODE_FAILED"
    with pytest.raises(ValueError, match="found neither"):
        evidence_of(None, None)
