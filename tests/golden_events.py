"""
The golden events: what was read and written, with the ids that came out, for every version of the contract.

Run this file to write those of the present version anew; it refuses to change an id. The rules are in
``tests/golden/README.md``.
"""

import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from schemas import SCHEMA_VERSION
from schemas.errors import ErrorCode
from schemas.verdict import ContentCredentials
from tests.builders import (
    MAX_EVENT_BYTES,
    NOON_S,
    TRACE,
    a_failure_ruling,
    a_judgement,
    a_raw_event,
    an_abstention,
    an_upload,
    as_json,
    facts,
    handled,
    structured,
    upload_data,
    versions,
)
from tests.fused_builders import a_fused_judgement
from worker.domain import Partition, Provenance, RawEvent
from worker.errors import EventUnreadable, UploadFailed
from worker.outcomes import Message
from worker.stages.intake import dead_letter_of, read_event
from worker.stages.report import facts_of_bytes, verdict_of_failure, verdict_of_judgement
from worker.stages.serialise import Route, source_of, to_message

GOLDEN: Final = Path(__file__).parent / "golden"
EXAMPLES: Final = Path(__file__).parents[1] / "schemas" / "examples"
ROUTE: Final = Route("moderation-verdicts", "moderation-dead-letters", source_of("touchstone"))
NO_PROOF: Final = ContentCredentials(state=None, unsigned_digital_source_type="digitalCapture")
Document = dict[str, Any]

SHOWN: Final = {
    "upload_https_binary": ("imageUploaded.https", "An image behind a signed address."),
    "upload_inline_binary": ("imageUploaded.inline", "A small image within the event."),
    "upload_s3_structured": ("imageUploadedStructured.s3", "An object of an S3-compatible store."),
    "upload_file_bare": ("imageUploadedBare.file", "A file below the configured root."),
    "verdict_decided": ("imageVerdict.decided", "The neighbours agree."),
    "verdict_fused": (
        "imageVerdict.fused",
        "The bank's fitted judgement decides: a calibrated probability, and a p-value below the policy's alpha.",
    ),
    "verdict_abstained": ("imageVerdict.abstained", "The neighbours do not agree; the policy wants a person."),
    "verdict_failed": ("imageVerdict.failed", "The image was gone before it could be fetched."),
    "dead_letter": ("imageDeadLetter.unreadable", "A record that is no upload event."),
}
"""Which golden events are shown in the AsyncAPI document, under which name."""


def golden_uploads() -> dict[str, RawEvent]:
    """
    One record for each kind of reference and each envelope.
    """
    encoded = structured(upload_data())
    encoded["data_base64"] = b64encode(as_json(encoded.pop("data"))).decode()
    return {
        "upload_https_binary": a_raw_event(),
        "upload_inline_binary": a_raw_event(upload_data("inline")),
        "upload_s3_structured": a_raw_event(upload_data("s3"), envelope="structured"),
        "upload_https_structured_base64": a_raw_event(
            encoded, envelope="bare", headers=(("content-type", b"application/cloudevents+json"),)
        ),
        "upload_https_structured_without_headers": a_raw_event(structured(upload_data()), envelope="bare"),
        "upload_file_bare": a_raw_event(upload_data("file"), envelope="bare", key=None),
    }


def golden_messages() -> dict[str, Message]:
    """
    One message for each way in which a record can end.
    """
    upload, run = an_upload(), versions()
    gone = UploadFailed(ErrorCode.FETCH_NOT_FOUND, "cdn.example answered 404", http_status=404)
    torn = UploadFailed(ErrorCode.DECODE_TRUNCATED, "JPEG ends after 4096 of 83211 bytes")
    unfetched = handled(facts=None, provenance=Provenance("not_reached"), search_ms=None)
    undecoded = handled(facts=facts_of_bytes(facts().sha256, 4096), provenance=Provenance("miss"), search_ms=None)
    outcomes = {
        "verdict_decided": verdict_of_judgement(upload, a_judgement(), surface="post", handled=handled(), versions=run),
        "verdict_fused": verdict_of_judgement(
            upload,
            a_fused_judgement(),
            surface="post",
            handled=handled(facts=facts(credentials=NO_PROOF), assess_ms=9.5),
            versions=versions(judgement="e1" * 32, views="f1" * 32),
        ),
        "verdict_abstained": verdict_of_judgement(
            upload,
            an_abstention(),
            surface="post",
            handled=handled(provenance=Provenance("hit", "redis")),
            versions=run,
        ),
        "verdict_failed": verdict_of_failure(upload, gone, ruling=a_failure_ruling(), handled=unfetched, versions=run),
        "verdict_failed_with_bytes": verdict_of_failure(
            upload, torn, ruling=a_failure_ruling(), handled=undecoded, versions=run
        ),
    }
    dead = {"dead_letter": dead_letter_of(*_unreadable(), worker_version="0.1.0", now_s=NOON_S)}
    return {name: to_message(outcome, ROUTE) for name, outcome in (outcomes | dead).items()}


def ids_of(raw: RawEvent) -> Document:
    """
    What a record is read as, and the ids of the verdict on it.
    """
    upload = read_event(raw, max_event_bytes=MAX_EVENT_BYTES)
    verdict = verdict_of_judgement(
        upload, a_judgement(), surface="post", handled=handled(), versions=versions()
    ).verdict
    return {
        "envelope": upload.identity.envelope,
        "event_id": upload.identity.id,
        "event_source": upload.identity.source,
        "event_time": upload.identity.time.isoformat() if upload.identity.time else None,
        "correlation_id": upload.identity.correlation_id,
        "content_id": upload.data.content_id,
        "kind": upload.data.image.ref.kind,
        "key": upload.key.decode(),
        "verdict_id": str(verdict.verdict_id),
        "decision_id": str(verdict.decision_id),
    }


def record_document(raw: RawEvent) -> Document:
    """
    A record as a golden file holds it.
    """
    return {
        "topic": raw.partition.topic,
        "partition": raw.partition.number,
        "offset": raw.offset,
        "timestamp_ms": raw.timestamp_ms,
        "key": None if raw.key is None else raw.key.decode(),
        "headers": {name: (value or b"").decode() for name, value in raw.headers},
        "value": json.loads(raw.value or b"null"),
    }


def record_of(document: Document) -> RawEvent:
    """
    The record that a golden file holds.
    """
    return RawEvent(
        partition=Partition(document["topic"], document["partition"]),
        offset=document["offset"],
        key=None if document["key"] is None else document["key"].encode(),
        value=as_json(document["value"]),
        headers=tuple((name, text.encode()) for name, text in document["headers"].items()),
        timestamp_ms=document["timestamp_ms"],
        received_at_s=NOON_S,
    )


def message_document(message: Message) -> Document:
    """
    A message as a golden file holds it.
    """
    return {
        "topic": message.topic,
        "timestamp_ms": message.timestamp_ms,
        "key": None if message.key is None else message.key.decode(),
        "headers": {name: (value or b"").decode() for name, value in message.headers},
        "value": json.loads(message.value),
    }


def golden_documents() -> dict[str, Document]:
    """
    Every golden file of the present version of the contract, by name.
    """
    read = {name: {"record": record_document(raw), "expected": ids_of(raw)} for name, raw in golden_uploads().items()}
    return read | {name: message_document(message) for name, message in golden_messages().items()}


def example_documents(golden: dict[str, Document]) -> dict[str, Document]:
    """
    The examples that ship with the contract: some of the golden events, without what only Kafka knows.
    """
    examples = {}
    for name, (shown, summary) in SHOWN.items():
        record = golden[name].get("record", golden[name])
        headers = {"headers": record["headers"]} if record["headers"] else {}
        examples[shown] = {"summary": summary, **headers, "payload": record["value"]}
    return examples


def _unreadable() -> tuple[RawEvent, EventUnreadable]:
    raw = a_raw_event(
        b'{"content_id": "post-8843", "image": {"ref": {"kind": "carrier_pigeon"}}}',
        headers=(("ce_specversion", b"1.0"), ("ce_id", b"01J9Z5-upload-8843"), ("ce_source", b"https://platform.example"),
                 ("ce_type", b"image.uploaded.v1"), ("x-route", None), *TRACE),
    )  # fmt: skip
    try:
        read_event(raw, max_event_bytes=MAX_EVENT_BYTES)
    except EventUnreadable as unreadable:
        return raw, unreadable
    raise AssertionError("the unreadable golden event could be read")


def _ids(document: Document) -> list[Any]:
    value = document.get("value", {})
    found = [document.get("expected", {}), value, {"ce_id": document.get("headers", {}).get("ce_id")}]
    return [part.get(name) for part in found for name in ("verdict_id", "decision_id", "ce_id", "event_id")]


def _write(folder: Path, documents: dict[str, Document]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        path = folder / f"{name}.json"
        if path.exists() and "payload" not in document and _ids(json.loads(path.read_text())) != _ids(document):
            sys.exit(f"{path} holds other ids than these sources give; ids are fixed for ever: restore the sources")
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    events = golden_documents()
    _write(GOLDEN / SCHEMA_VERSION, events)
    _write(EXAMPLES, example_documents(events))
