"""
Every message that we write is read by clients that are not ours.
"""

import json
from dataclasses import replace

import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.builders import (
    a_judgement,
    a_neighbour,
    a_raw_event,
    an_upload,
    evidence,
    handled,
    structured,
    upload_data,
    versions,
)
from tests.golden_events import ROUTE, golden_messages
from tests.peers import assert_cloudevent, assert_valid, validator_of
from worker.errors import EventUnreadable
from worker.outcomes import Message
from worker.stages.intake import dead_letter_of, read_event
from worker.stages.report import verdict_of_judgement
from worker.stages.serialise import to_message

MESSAGES = golden_messages()


@pytest.mark.parametrize("name", MESSAGES)
def test_the_cloudevents_sdk_reads_each_kind_of_message(name: str) -> None:
    """
    The official SDK finds the attributes and the data that we meant, in both generations of its API.
    """
    message = MESSAGES[name]
    event = assert_cloudevent(message.headers, message.value, message.key)

    assert event.get_subject() == "post-8843"
    assert event.get_extension("partitionkey") == "acme|post-8843"
    assert event.get_extension("causationid") == "01J9Z5-upload-8843"
    time = event.get_time()
    assert time is not None
    assert int(time.timestamp() * 1000) == message.timestamp_ms


@pytest.mark.parametrize("name", MESSAGES)
def test_a_validator_that_is_not_pydantic_accepts_each_kind_of_message(name: str) -> None:
    """
    The data of every message satisfies the exported JSON Schema of its type, formats included.
    """
    message = MESSAGES[name]
    data = assert_valid(_type_of(message), message.value)

    assert data


def test_the_exported_schema_refuses_what_would_mislead_a_consumer() -> None:
    """
    A failed verdict with a label, a decided one without evidence and an id that is none are not valid.
    """
    decided = json.loads(MESSAGES["verdict_decided"].value)
    failed = json.loads(MESSAGES["verdict_failed"].value)
    labelled = {**failed, "outcome": {**failed["outcome"], "label": "real"}}
    validator = validator_of("image.verdict.v1")

    assert not validator.is_valid(labelled)
    assert not validator.is_valid({**decided, "evidence": None})
    assert not validator.is_valid({**decided, "verdict_id": "7"})
    assert not validator.is_valid({**decided, "timing": {**decided["timing"], "produced_at": "noon"}})


def test_a_later_minor_version_stays_valid_for_the_consumers_of_this_one() -> None:
    """
    Unknown fields and unknown codes are information to a consumer, not errors.
    """
    verdict = json.loads(MESSAGES["verdict_decided"].value)
    verdict["outcome"]["reasons"][0]["code"] = "A_REASON_OF_TOMORROW"
    verdict["evidence"]["of_tomorrow"] = {"any": "thing"}

    assert_valid("image.verdict.v1", verdict)


def test_a_shortened_verdict_is_read_like_any_other() -> None:
    """
    A verdict from which neighbours were left out is a valid CloudEvent with valid data that says so.
    """
    many = evidence(*(a_neighbour(rank, entry_id="x" * 200) for rank in range(1, 33)))
    outcome = verdict_of_judgement(
        an_upload(attributes={"note": "n" * 4000}),
        a_judgement(evidence=many),
        surface="post",
        handled=handled(),
        versions=versions(),
    )
    message = to_message(outcome, ROUTE)
    assert_cloudevent(message.headers, message.value, message.key)
    data = assert_valid("image.verdict.v1", message.value)

    assert data["evidence"]["truncated"] is True


def test_a_dead_letter_of_a_record_without_anything_is_a_cloudevent() -> None:
    """
    Neither key nor headers nor value: there is still an event with an id of its own.
    """
    raw = replace(a_raw_event(envelope="bare"), key=None, value=None)
    with pytest.raises(EventUnreadable) as caught:
        read_event(raw, max_event_bytes=1024)
    message = to_message(dead_letter_of(raw, caught.value, worker_version="0.1.0", now_s=0.0), ROUTE)
    event = assert_cloudevent(message.headers, message.value, message.key)
    assert_valid("image.dead_letter.v1", message.value)

    assert event.get_subject() is None
    assert event.get_extension("causationid") is None


def test_what_the_sdk_writes_we_read() -> None:
    """
    An upload event that a producer made with the SDK, in binary or structured mode, is read with its attributes.
    """
    attributes = {name: text for name, text in structured({}).items() if name not in {"data", "time"}}
    for write in (to_binary_event, to_structured_event):
        written = write(CloudEvent({**attributes, "partitionkey": "k"}, upload_data()))
        raw = a_raw_event(written.value, headers=tuple(written.headers.items()), key=b"k")
        upload = read_event(raw, max_event_bytes=100_000)

        assert (upload.identity.id, upload.identity.source) == (attributes["id"], attributes["source"])
        assert upload.identity.envelope == ("binary" if write is to_binary_event else "structured")
        assert upload.data.content_id == "post-8843"


def _type_of(message: Message) -> str:
    return (dict(message.headers)["ce_type"] or b"").decode()
