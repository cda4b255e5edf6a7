"""
Records that kafka-python alone cannot read, on a real broker: a worker's source reads on, and a worker goes on.
"""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from schemas.bank_control import BankControlV1
from tests.hostile_batches import BytesName
from tests.kafka_reader import Counts, Reader
from tests.kafka_worlds import RealWorld
from tests.platform_side import DEADLINE_S, SILENT, Event, inline, small_jpeg, upload_event
from tests.sightings import a_hash, a_scope, a_sighting
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_collection import collect
from worker.adapters.kafka_control import ControlReader, announce
from worker.adapters.kafka_sightings import KafkaSightings, keys_of
from worker.adapters.kafka_verdicts import read_verdicts
from worker.dev.servers import KafkaAt
from worker.errors import CannotStart

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(240)]

NAME = BytesName(b"\xff\xfe")
CAT = a_hash("cat")


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_a_producer_is_read(kafka: KafkaAt, topic_name: str, codec: str) -> None:
    """
    As librdkafka writes it, whose ways of using a codec are not kafka-python's.
    """
    values = [b"%d " % number * 500 for number in range(20)]
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        producer = Producer(
            {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": codec, "linger.ms": 50, **SILENT}
        )
        for value in values:
            producer.produce(world.uploads, value, partition=0, headers=[("codec", codec.encode())])
        producer.flush(DEADLINE_S)
        with Reader(world.source()) as reader:
            assert reader.until(lambda: len(reader.events) == len(values))

    assert values == [event.value for event in reader.events]
    assert [None] * len(values) == [event.fault for event in reader.events]


def test_a_header_name_of_bytes_stops_nobody(kafka: KafkaAt, topic_name: str) -> None:
    """
    The source gives that record with its fault, the others of its batch as they are, and commits behind all of them.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=100, acks="all")
        for number in range(5):
            producer.send(
                world.uploads, b"%d" % number, partition=0, headers=[(NAME, b"x")] if number == 2 else [("a", b"x")]
            )
        producer.close()
        with Reader(world.source()) as reader:
            assert reader.until(lambda: len(reader.events) == 5)
            assert reader.call(lambda source: source.commit({reader.events[0].partition: 5}))

        assert [0, 1, 2, 3, 4] == [event.offset for event in reader.events]
        assert [2] == [event.offset for event in reader.events if event.fault is not None]
        assert world.committed(0) == 5


def test_a_worker_answers_it_with_a_dead_letter(new_rig: Callable[..., WorkerRig]) -> None:
    """
    One letter for it, which says what was found; a verdict for each of the others; and the worker leaves in order.
    """
    rig = new_rig()
    rig.create_topics(1)
    worker = rig.start("one")
    good = [upload_event(f"good/{number}", inline(small_jpeg(number)), key="key") for number in range(4)]
    bad = Event(good[0].key, good[0].value, (*good[0].headers, (NAME, b"x")))
    with rig.reader() as reader:
        sent = rig.publish([*good[:2], bad, *good[2:]])

        assert reader.until_answered(sent, 180.0), worker.text()
        assert 0 == worker.stop()
    (letter,) = (one.data for one in reader.outcomes if "original" in one.data)
    assert "EVENT_INVALID" == letter["error"]["code"]
    assert "header name: found b'\\xff\\xfe', which is no UTF-8" in letter["error"]["detail"]
    assert letter["original"]["truncated"]
    assert [2] == [letter["original"]["offset"]]
    assert {0, 1, 3, 4} == {one.data["input"]["offset"] for one in reader.outcomes if "input" in one.data}


def test_what_cannot_be_read_is_no_tombstone(kafka: KafkaAt, topic_name: str) -> None:
    """
    It stops no reader of the control topic and of the embeddings, and what held before goes on holding.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        topics = {"bank_control": world.dead_letters, "embeddings": world.verdicts}
        settings = world.settings.model_copy(update={"topics": world.settings.topics.model_copy(update=topics)})
        held = BankControlV1(bank="small", release="1", manifest_sha256=CAT, issued_at=datetime.now(UTC))
        announce(settings, held)
        with closing(KafkaSightings(settings, a_scope(), recorder=Counts())) as archive:
            archive.keep({CAT: a_sighting(CAT)})
        for topic, key in ((world.dead_letters, b"small"), *((world.verdicts, key) for key in keys_of(CAT))):
            write(kafka, topic, None, key=key, partition=0 if key == b"small" else int(CAT[:8], 16) % 2)
        with closing(ControlReader(settings, "small")) as reader:
            newest = reader.newest()
        with closing(KafkaSightings(settings, a_scope(), recorder=Counts())) as archive:
            recalled = archive.recall([CAT])

    assert held == newest
    assert {CAT} == set(recalled)


def test_a_verdict_that_cannot_be_read_is_named(kafka: KafkaAt, topic_name: str) -> None:
    """
    To whoever compares verdicts, as any record that is none; to whoever collects, it is a record with its fault.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        write(kafka, world.verdicts, None, key=b"key", partition=1)
        collected = list(collect(world.settings, world.verdicts))
        with pytest.raises(CannotStart, match=r"partition 1, offset 0: header name: found"):
            list(read_verdicts(world.settings, world.verdicts))

    assert [(None, False)] == [(record.value, record.whole) for record in collected]


def write(kafka: KafkaAt, topic: str, value: bytes | None, *, key: bytes, partition: int) -> None:
    """
    A record whose header has a name of bytes.
    """
    with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")) as producer:
        producer.send(topic, value, key=key, partition=partition, headers=[(NAME, b"x")]).get(DEADLINE_S)
