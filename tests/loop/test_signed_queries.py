"""
What a producer wrote where an error, a log line or a span may quote it: of an address, nothing secret is told again.

Echoed are only the fields that the contract promises to echo; the record itself lies in its dead letter.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import write_binary
from schemas.uploaded import TYPE
from tests.builders import a_raw_event, as_json, upload_attributes, upload_data
from tests.leaks import found_in, text_of_bytes, without_original
from tests.loop_rig import MAX_IMAGE_BYTES, Worker
from tests.loop_world import DEAD_LETTERS, VERDICTS, World
from tests.recorded_spans import SpanBook
from worker.adapters.image_store import build_image_store
from worker.errors import EventUnreadable
from worker.flow.stage_set import StageSet
from worker.settings.images import FetchSettings, S3Profile
from worker.stages.fetch import fetch_upload
from worker.stages.intake import read_event

MARK = "Needle0001Secret"
ADDRESSES = [
    f"https://cdn.example/a.jpg?X-Amz-Signature={MARK}",
    f"cdn.example/a.jpg?X-Amz-Signature={MARK}",
    f"//cdn/a?X-Amz-Signature={MARK}",
    f"/a?sig={MARK}&x=1",
    f"1https://cdn/a?X-Amz-Signature={MARK}",
    f"Ühttps://cdn/a?X-Amz-Signature={MARK}",
    f"https://cdn/a b?X-Amz-Signature={MARK}",
    f"https:/cdn/a?X-Amz-Signature={MARK}",
    f"https%3A%2F%2Fcdn%2Fa%3FX-Amz-Signature%3D{MARK}",
    f"https://u:{MARK}/x@h/{'a' * 60}",
    f"redis://:pa/{MARK}@h",
    f"https://[x/?sig={MARK}",
    f"https://h:99999999/a?sig={MARK}",
    f"ftp://u:{MARK}@h/",
]
HEADERS = ["ce_specversion", "ce_type", "ce_time", "content-type"]
FIELDS = [
    "image", "image.sha256", "image.media_type", "image.expires_at", "image.byte_length", "image.ref", "image.ref.kind",
    "image.ref.url", "image.ref.base64", "image.ref.path", "image.ref.bucket", "image.ref.key", "image.ref.profile",
    "revision", "declared", "declared.ai_disclosed", "context", "context.surface", "context.created_at", "attributes",
]  # fmt: skip
ECHOED = ["content_id", "tenant_id", "declared.digital_source_type", "attributes.post"]
KINDS = {"url": "https", "base64": "inline", "path": "file", "bucket": "s3", "key": "s3", "profile": "s3"}
REFUSED = FetchSettings(
    allowed_hosts=("nowhere.example",), s3={"media": S3Profile(endpoint_url="http://127.0.0.1:9", buckets=("ours",))}
)
"""Every reference is refused or unreadable before anything is asked of anybody."""


def with_field(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """
    The data of an upload with one field changed, and with the kind of reference to which that belongs.
    """
    *above, name = path.split(".")
    table = data
    for step in above:
        table = table[step]
    table[name] = value
    if above == ["image", "ref"] and name in KINDS:
        table["kind"] = KINDS[name]
        table |= (
            {"bucket": "uploads", "key": "a.jpg", "profile": "media"} | {name: value} if table["kind"] == "s3" else {}
        )
    return data


def records(fields: list[str], headers: list[str]) -> Iterator[tuple[str, bytes, tuple[tuple[str, bytes], ...]]]:
    """
    For each of these fields and headers, and each address, the name, value and headers of a record that holds it there.
    """
    for number, address in enumerate(ADDRESSES):
        for path in fields:
            name = f"{path}-{number}"
            data = with_field(upload_data("https", content_id=name), path, address)
            yield name, as_json(data), write_binary(upload_attributes(id=name, subject=name))
        for header in headers:
            name = f"{header}-{number}"
            own = dict(write_binary(upload_attributes(id=name, subject=name))) | {header: address.encode()}
            yield name, as_json(upload_data("https", content_id=name)), tuple(own.items())
        odd = f'{{"content_id": "x", "url": "{address}"'.encode()
        yield f"broken-{number}", odd, write_binary(upload_attributes(id="broken"))


class RefusingWorker(Worker):
    """
    A worker with the image store of production, which may fetch nothing.
    """

    def _surrounded(self, stages: StageSet) -> StageSet:
        store = build_image_store(REFUSED)
        return replace(
            stages, fetch=partial(fetch_upload, store=store, clock=self.world.clock, max_image_bytes=MAX_IMAGE_BYTES)
        )


def worked_off(world: World, fields: list[str], headers: list[str]) -> SpanBook:
    """
    All of these records answered; the spans of the work.
    """
    for number, (name, value, own) in enumerate(records(fields, headers)):
        world.publish_raw(name, value, partition=number % 3, headers=own)
    book = SpanBook()
    RefusingWorker(world, tracer=book.tracer).finish()
    return book


def test_no_address_of_an_event_is_told_again(world: World, log: io.StringIO) -> None:
    """
    Whichever field or header holds it, read as an event or not: in no verdict, letter, header, log line or span.
    """
    book = worked_off(world, FIELDS, HEADERS)
    published = [*world.kafka.records(VERDICTS), *world.kafka.records(DEAD_LETTERS)]
    places = {
        "verdicts": "\n".join(text_of_bytes(one.value) for one in world.kafka.records(VERDICTS)),
        "letters": "\n".join(
            json.dumps(without_original(json.loads(one.value or b""))) for one in world.kafka.records(DEAD_LETTERS)
        ),
        "headers": "\n".join(f"{name}: {text_of_bytes(value)}" for one in published for name, value in one.headers),
        "log": log.getvalue(),
        "spans": "\n".join(span.to_json() for span in book.spans),
    }

    assert all(places.values())
    assert {"fetch", "parse"} <= {letter.error.stage for letter in world.dead_letters()}
    assert len(world.positions) == len(world.ends())
    assert {} == {place: found for place, text in places.items() if (found := found_in(text, {MARK: MARK}))}


def test_what_is_echoed_stands_in_no_error_log_or_span(world: World, log: io.StringIO) -> None:
    """
    A verdict repeats these fields as the contract says, and nothing else does.
    """
    book = worked_off(world, ECHOED, ["ce_id", "ce_source", "ce_correlationid"])
    errors = [verdict.error.detail for verdict in world.verdicts() if verdict.error is not None]
    errors += [letter.error.detail for letter in world.dead_letters()]
    said = [*errors, *log.getvalue().splitlines(), *(span.to_json() for span in book.spans)]

    assert errors
    assert [] == [text for text in said if MARK in text]


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("envelope", ["binary", "structured", "bare"])
def test_no_refusal_quotes_an_address(envelope: str, data: st.DataObject) -> None:
    """
    However many fields of an event hold one at once, in whichever envelope it came.
    """
    upload = upload_data("https")
    for path in data.draw(st.lists(st.sampled_from([*FIELDS[1:5], *FIELDS[6:14], "context.surface"]), min_size=1)):
        upload = with_field(upload, path, data.draw(st.sampled_from(ADDRESSES)))
    document: dict[str, Any] = upload
    if envelope == "structured":
        attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": TYPE, "time": "2026-11-22T10:00:00Z"}
        spoilt = data.draw(st.dictionaries(st.sampled_from(sorted(attributes)), st.sampled_from(ADDRESSES)))
        document = attributes | spoilt | {"data": upload}
    raw = a_raw_event(as_json(document), envelope="bare" if envelope == "structured" else envelope)
    try:
        read_event(raw, max_event_bytes=1 << 20)
    except EventUnreadable as unreadable:
        said = f"{unreadable.detail} {unreadable}"
    else:
        said = ""

    assert MARK not in said
