"""
Records that kafka-python alone cannot read, on a real broker: a worker's source reads on, and a worker goes on.
"""

from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from tests.hostile_batches import BytesName
from tests.kafka_reader import Reader
from tests.kafka_worlds import RealWorld
from tests.platform_side import DEADLINE_S, SILENT, Event, inline, small_jpeg, upload_event
from tests.worker_rig import WorkerRig
from worker.dev.servers import KafkaAt

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(240)]

NAME = BytesName(b"\xff\xfe")


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
