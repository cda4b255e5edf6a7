"""
One worker seen by its peers: producers and consumers with libraries of their own, and a Redis that goes and comes.
"""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import KafkaError, Message, Producer

from schemas.uploaded import TYPE
from tests.outcome_reader import OutcomeReader
from tests.peers import assert_cloudevent, assert_valid
from tests.platform_side import DEADLINE_S, SILENT, Event, Published, inline, small_jpeg, upload_event
from tests.servers import eventually
from tests.worker_rig import Instruments, WorkerRig
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import KafkaAt

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

PARTITIONS = 3
MAX_EVENT_BYTES = 100_000


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    """
    A Redis that these tests may kill.
    """
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def rig(
    kafka: KafkaAt, own_redis: EmbeddedRedis, instruments: Instruments, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerRig]:
    """
    A worker that asks Redis for every upload, having next to no memory of its own, and tries again soon.
    """
    folder = tmp_path_factory.mktemp("worker")
    with WorkerRig(kafka.bootstrap_servers, own_redis.url, instruments, folder) as rig:
        rig.configure(f"kafka.max_event_bytes={MAX_EVENT_BYTES}", "flow.recent_embeddings=1")
        rig.configure("redis.breaker_failures=1", "redis.breaker_open_s=0.2", "redis.connect_timeout_s=1")
        rig.create_topics(PARTITIONS)
        worker = rig.start("one")
        worker.until_started()
        yield rig
        assert worker.stop() == 0


@pytest.fixture(scope="module")
def reader(rig: WorkerRig) -> OutcomeReader:
    """
    All that the worker has published.
    """
    return rig.reader()


def publish_by_peer(rig: WorkerRig, events: Sequence[Event]) -> list[Published]:
    """
    Sent and acknowledged through librdkafka.
    """
    producer = Producer({"bootstrap.servers": rig.bootstrap_servers, **SILENT})
    delivered: dict[int, Message] = {}

    def keeper(number: int) -> Callable[[KafkaError | None, Message], None]:
        def keep(error: KafkaError | None, message: Message) -> None:
            assert error is None
            delivered[number] = message

        return keep

    for number, event in enumerate(events):
        producer.produce(
            rig.settings.kafka.topics.uploads,
            value=event.value,
            key=event.key,
            headers=list(event.headers),
            on_delivery=keeper(number),
        )
    assert producer.flush(DEADLINE_S) == 0
    places = [(delivered[number].partition() or 0, delivered[number].offset() or 0) for number in range(len(events))]
    return [Published(event, place) for event, place in zip(events, places, strict=True)]


def by_sdk(mode: str, content_id: str) -> Event:
    """
    An upload as the CloudEvents SDK writes it, or without any envelope.
    """
    data: dict[str, Any] = {"content_id": content_id, "image": {"ref": inline(small_jpeg(1))}}
    if mode == "bare":
        return Event(content_id.encode(), json.dumps(data).encode())
    attributes = {"id": f"event-{content_id}", "source": "https://peer.example", "type": TYPE, "specversion": "1.0"}
    event = CloudEvent({**attributes, "partitionkey": content_id}, data)
    written = to_binary_event(event) if mode == "binary" else to_structured_event(event)
    assert written.key is not None
    key = written.key if isinstance(written.key, bytes) else written.key.encode()
    return Event(key, written.value, tuple(written.headers.items()))


def test_events_of_other_libraries_are_read(rig: WorkerRig, reader: OutcomeReader) -> None:
    """
    Whoever writes an upload, in binary or structured mode or as bare JSON, gets a verdict on it under the same key.
    """
    modes = ["binary", "structured", "bare"]
    published = publish_by_peer(rig, [by_sdk(mode, f"peer-{mode}") for mode in modes])
    assert reader.until_answered(published)
    verdicts = [reader.verdict_of(one) for one in published]

    assert modes == [verdict["input"]["envelope"] for verdict in verdicts]
    assert [f"peer-{mode}" for mode in modes] == [verdict["content_id"] for verdict in verdicts]
    assert ["event-peer-binary", "event-peer-structured"] == [one["input"]["event_id"] for one in verdicts[:2]]
    assert {"decided", "abstained"} >= {verdict["outcome"]["status"] for verdict in verdicts}
    keys = {outcome.answers: outcome.key for outcome in reader.outcomes}
    assert [one.event.key for one in published] == [keys[one.position] for one in published]


def test_what_is_no_upload_becomes_a_dead_letter_byte_for_byte(rig: WorkerRig, reader: OutcomeReader) -> None:
    """
    No JSON, no value, another event's type, too many bytes: each is kept as it was, with its headers, and says why.
    """
    stranger = by_sdk("binary", "stranger")
    foreign = (*(one for one in stranger.headers if one[0] != "ce_type"), ("ce_type", b"video.uploaded.v9"))
    unreadable = {
        "EVENT_INVALID": Event(b"torn", b'{"content_id": ', (("x-odd", b"\xff\x00"), ("x-odd", b"again"))),
        "EVENT_EMPTY": Event(b"empty", None),
        "EVENT_TYPE_UNSUPPORTED": Event(b"other", stranger.value, foreign),
        "EVENT_TOO_LARGE": Event(b"large", b" " * (MAX_EVENT_BYTES + 1)),
    }
    published = publish_by_peer(rig, list(unreadable.values()))
    assert reader.until_answered(published)
    letters = {outcome.answers: outcome.data for outcome in reader.outcomes}

    for code, one in zip(unreadable, published, strict=True):
        original = letters[one.position]["original"]
        headers = [(header["name"], base64.b64decode(header["value_base64"])) for header in original["headers"]]
        value = original["value_base64"]
        assert code == letters[one.position]["error"]["code"]
        assert one.event.value == (None if value is None else base64.b64decode(value))
        assert list(one.event.headers) == headers
        assert one.event.key == base64.b64decode(original["key_base64"])


def test_every_message_is_read_by_peers(rig: WorkerRig, reader: OutcomeReader) -> None:
    """
    Decided, abstained, failed or dead: the CloudEvents SDK parses the message and the exported schema allows its data.
    """
    torn = small_jpeg(2)[:300]
    events = [upload_event(f"all-{number}", inline(small_jpeg(number))) for number in range(20)]
    events += [upload_event("all-torn", inline(torn)), upload_event("all-gone", {"kind": "file", "path": "no/such"})]
    published = publish_by_peer(rig, [*events, Event(b"all-dead", b"no event")])
    ours = {one.position for one in published}
    # Behind the verdict on what only an operator can let in, its letter.
    assert reader.until(lambda: len([one for one in reader.outcomes if one.answers in ours]) == len(published) + 1)
    read = [outcome for outcome in list(reader.outcomes) if outcome.answers in ours]
    types = [assert_cloudevent(one.headers, one.value, one.key).get_type() for one in read]
    data = [assert_valid(event_type, one.value) for event_type, one in zip(types, read, strict=True)]

    assert sorted(types) == ["image.dead_letter.v1"] * 2 + ["image.verdict.v1"] * (len(events))
    assert ["EVENT_INVALID", "REF_FORBIDDEN"] == sorted(one["error"]["code"] for one in data if "original" in one)
    failed = {one["content_id"]: one["error"]["code"] for one in data if "verdict_id" in one and one["error"]}
    assert failed == {"all-torn": "DECODE_TRUNCATED", "all-gone": "REF_FORBIDDEN"}


def published_pair(rig: WorkerRig, reader: OutcomeReader, number: int) -> list[dict[str, Any]]:
    """
    The verdicts on the same new bytes, published one after the other under two content ids.
    """
    picture = inline(small_jpeg(1000 + number))
    other = inline(small_jpeg(5000 + number))
    verdicts = []
    # Another picture in between, so that the worker's own memory of one has forgotten.
    for content_id, reference in (("first", picture), ("other", other), ("second", picture)):
        published = rig.publish([upload_event(f"pair-{number}-{content_id}", reference)])
        assert reader.until_answered(published)
        verdicts.append(reader.verdict_of(published[0]))
    return [verdicts[0], verdicts[2]]


def test_known_bytes_are_neither_decoded_nor_encoded_again(rig: WorkerRig, reader: OutcomeReader) -> None:
    """
    The second upload of the same bytes is a hit in Redis: no decode and no encode, and the same judgement.
    """
    first, second = published_pair(rig, reader, 1)

    assert {"status": "miss", "tier": None} == first["cache"]
    assert {"status": "hit", "tier": "redis"} == second["cache"]
    assert None not in (first["timing"]["decode_ms"], first["timing"]["encode_ms"])
    assert (None, None) == (second["timing"]["decode_ms"], second["timing"]["encode_ms"])
    assert first["outcome"] == second["outcome"]
    assert first["image"] == second["image"]
    assert first["verdict_id"] != second["verdict_id"]


def test_verdicts_go_on_without_redis(rig: WorkerRig, reader: OutcomeReader, own_redis: EmbeddedRedis) -> None:
    """
    While Redis is gone every upload is judged and its verdict says that the cache was bypassed; then hits come again.
    """
    numbers = iter(range(100, 1000))

    def hit_again() -> bool:
        return bool(published_pair(rig, reader, next(numbers))[1]["cache"] == {"status": "hit", "tier": "redis"})

    before = published_pair(rig, reader, 2)
    own_redis.kill()
    try:
        without = published_pair(rig, reader, 3)
    finally:
        own_redis.start()
    back = eventually(hit_again, deadline_s=DEADLINE_S)

    assert ["miss", "hit"] == [verdict["cache"]["status"] for verdict in before]
    assert ["bypass", "bypass"] == [verdict["cache"]["status"] for verdict in without]
    assert {"decided", "abstained"} >= {verdict["outcome"]["status"] for verdict in without}
    assert without[0]["outcome"] == without[1]["outcome"]
    assert back
