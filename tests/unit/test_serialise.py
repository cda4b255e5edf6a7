"""
Outcomes as messages.
"""

import json

from schemas.errors import ErrorCode
from schemas.judgement import AttributionV1
from schemas.verdict import LabelEvidence
from tests.builders import (
    NOON_S,
    TRACE,
    a_judgement,
    a_neighbour,
    a_raw_event,
    an_upload,
    evidence,
    handled,
    versions,
)
from tests.fused_builders import a_fused_judgement
from tests.peers import assert_valid
from worker.errors import EventUnreadable
from worker.outcomes import Message
from worker.stages.intake import dead_letter_of
from worker.stages.report import verdict_of_judgement
from worker.stages.serialise import MAX_VERDICT_BYTES, Route, source_of, to_message

ROUTE = Route("moderation-verdicts", "moderation-dead-letters", source_of("touchstone"))


def _message(judgement_evidence: object = None, **changes: object) -> Message:
    judgement = a_judgement() if judgement_evidence is None else a_judgement(evidence=judgement_evidence)
    issued = verdict_of_judgement(
        an_upload("https", **changes), judgement, surface="post", handled=handled(), versions=versions()
    )
    return to_message(issued, ROUTE)


def test_a_verdict_goes_to_its_topic_under_the_key_of_its_upload() -> None:
    """
    Topic, key and time stamp are fixed by the outcome, and so are the bytes.
    """
    message = _message()

    assert (message.topic, message.key) == ("moderation-verdicts", b"acme|post-8843")
    assert message.timestamp_ms == int(NOON_S * 1000)
    assert message == _message()


def test_the_headers_of_a_verdict_tell_what_it_answers() -> None:
    """
    The id is the verdict's, the cause is the upload event, and the correlation and the trace are carried on.
    """
    message = _message()
    headers = dict(message.headers)

    assert headers["ce_id"] == json.loads(message.value)["verdict_id"].encode()
    assert headers["ce_source"] == b"urn:touchstone:worker:touchstone"
    assert (headers["ce_type"], headers["ce_subject"]) == (b"image.verdict.v1", b"post-8843")
    assert (headers["ce_causationid"], headers["ce_correlationid"]) == (b"01J9Z5-upload-8843", b"request-17")
    assert headers["ce_dataschema"] == b"urn:touchstone:schema:image.verdict.v1:1.1"
    assert message.headers[-1:] == TRACE


def test_a_dead_letter_goes_to_its_topic_under_the_same_id_every_time() -> None:
    """
    The id depends on where the record lay, not on when it was refused or for what.
    """
    raw = a_raw_event(b"\xff", key=None)
    first = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_INVALID, "a"), worker_version="1", now_s=0.0)
    again = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_EMPTY, "b"), worker_version="2", now_s=9.0)
    messages = [to_message(outcome, ROUTE) for outcome in (first, again)]

    assert {message.topic for message in messages} == {"moderation-dead-letters"}
    assert {message.key for message in messages} == {None}
    assert len({dict(message.headers)["ce_id"] for message in messages}) == 1
    assert all(message.headers[-1:] == TRACE for message in messages)


def test_a_key_that_is_no_text_stays_a_key_and_is_no_attribute() -> None:
    """
    CloudEvents attributes are text; order per key matters more than telling the key twice.
    """
    issued = verdict_of_judgement(an_upload(), a_judgement(), surface="post", handled=handled(), versions=versions())
    message = to_message(type(issued)(b"\xff\x00", issued.identity, issued.verdict), ROUTE)

    assert message.key == b"\xff\x00"
    assert "ce_partitionkey" not in dict(message.headers)


def test_a_verdict_that_is_too_large_loses_its_farthest_neighbours_first() -> None:
    """
    As many as must go, from the end, and the verdict says so; the votes per label stay.
    """
    many = evidence(*(a_neighbour(rank, entry_id="e" * 1000) for rank in range(1, 33)))
    message = _message(many)
    data = json.loads(message.value)
    ranks = [neighbour["rank"] for neighbour in data["evidence"]["neighbours"]]

    assert MAX_VERDICT_BYTES - 1200 < len(message.value) <= MAX_VERDICT_BYTES
    assert ranks == list(range(1, len(ranks) + 1))
    assert data["evidence"]["truncated"] is True
    assert set(data["evidence"]["per_label"]) == {"ai_generated", "real"}


def test_a_bank_of_hundreds_of_labels_fits_too() -> None:
    """
    Labels that nobody voted for are left out after the neighbours.
    """
    silent = LabelEvidence(entries=1, votes=0, share=0.0, max_similarity=None, mean_similarity=None)
    known = evidence()
    crowded = known.model_copy(
        update={"per_label": {**known.per_label, **{f"label-{number}": silent for number in range(300)}}}
    )
    message = _message(crowded)
    data = json.loads(message.value)

    assert len(message.value) <= MAX_VERDICT_BYTES
    assert set(data["evidence"]["per_label"]) == {"ai_generated", "real"}
    assert data["evidence"]["neighbours"] == []


def test_the_largest_event_still_gets_a_verdict_within_the_cap() -> None:
    """
    Attributes, ids and text at their limits leave room for everything but neighbours.
    """
    message = _message(
        content_id="ä" * 256, tenant_id="ß" * 64, attributes={"a": "\0" * 670},
        declared={"ai_disclosed": True, "digital_source_type": "\0" * 256},
    )  # fmt: skip

    assert len(message.value) <= MAX_VERDICT_BYTES


def test_generators_with_endless_names_are_left_out_last() -> None:
    """
    A bank's owner names generators with up to 256 characters of any kind; who is named stays.
    """
    names = [f"{letter * 255}\0" for letter in "\1\2\3\4\5"]
    attribution = AttributionV1(generator=names[0], probability=0.6, posterior=dict.fromkeys(names, 0.2))
    issued = verdict_of_judgement(
        an_upload("https", attributes={"a": "\0" * 670}, content_id="ä" * 256),
        a_fused_judgement(attribution=attribution),
        surface="post",
        handled=handled(),
        versions=versions(),
    )
    message = to_message(issued, ROUTE)
    data = json.loads(message.value)

    assert len(message.value) <= MAX_VERDICT_BYTES
    assert (data["attribution"]["generator"], data["attribution"]["posterior"]) == (names[0], {})
    assert data["evidence"]["neighbours"] == []
    assert_valid("image.verdict.v1", message.value)


def test_a_verdict_of_usual_size_is_whole() -> None:
    """
    Nothing is left out that need not be, by a vote or by a fitted judgement.
    """
    fused = verdict_of_judgement(
        an_upload(), a_fused_judgement(), surface="post", handled=handled(), versions=versions()
    )

    assert json.loads(_message().value)["evidence"]["truncated"] is False
    assert json.loads(to_message(fused, ROUTE).value)["attribution"]["posterior"] != {}
