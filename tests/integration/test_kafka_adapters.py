"""
The Kafka adapters on a real broker: what the contract suites of both worlds cannot say.

Rebalances that go wrong are in ``test_kafka_rebalances.py``, brokers that go away in ``test_kafka_outages.py``.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from tests.kafka_reader import DEADLINE_S, Reader
from tests.kafka_worlds import PARTITIONS, RealWorld, poll_until, release
from worker.adapters import kafka_fetches
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_source import KafkaEventSource
from worker.dev.embedded import free_port
from worker.dev.servers import KafkaAt
from worker.domain import Partition
from worker.errors import CannotStart, PublishFailed, WorkerCrashed
from worker.ports import GroupMembership
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers


@pytest.fixture
def world(kafka: KafkaAt, topic_name: str) -> Iterator[RealWorld]:
    """
    Fresh topics and a fresh group on the real broker.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        yield world


def start(settings: KafkaSettings, world: RealWorld, adapter: type[KafkaEventSource] | type[KafkaOutbox]) -> None:
    """
    Make an adapter that has 2 seconds to find its Kafka.
    """
    if adapter is KafkaEventSource:
        KafkaEventSource(settings, world.counts, client_id="test", start_timeout_s=2.0)
    else:
        KafkaOutbox(settings, world.counts, client_id="test", transactional_id=None, start_timeout_s=2.0)


@pytest.mark.parametrize("adapter", [KafkaEventSource, KafkaOutbox])
def test_a_kafka_that_is_not_there_is_named_soon(
    world: RealWorld, adapter: type[KafkaEventSource] | type[KafkaOutbox]
) -> None:
    """
    Within the time it has, with the address where we looked.
    """
    nowhere = f"127.0.0.1:{free_port()}"
    settings = world.settings.model_copy(update={"bootstrap_servers": nowhere})
    begin_s = time.monotonic()

    with pytest.raises(CannotStart, match=nowhere):
        start(settings, world, adapter)
    assert time.monotonic() - begin_s < 60


def test_the_wrong_protocol_is_named_soon(world: RealWorld) -> None:
    """
    TLS towards a port that speaks plain text: the message says where, that TLS failed and what to check.
    """
    settings = world.settings.model_copy(update={"security_protocol": "SSL"})

    # Whether the broker closes the connection or resets it, is up to it.
    told = rf"{settings.bootstrap_servers} .*TLS handshake (failed|ended early) .*the listener seems to speak no TLS"
    with pytest.raises(CannotStart, match=told):
        start(settings, world, KafkaEventSource)


@pytest.mark.parametrize(
    ("adapter", "role"), [(KafkaEventSource, "uploads"), (KafkaOutbox, "verdicts"), (KafkaOutbox, "dead_letters")]
)
def test_a_missing_topic_is_named_with_what_creates_it(
    world: RealWorld, adapter: type[KafkaEventSource] | type[KafkaOutbox], role: str
) -> None:
    """
    At once, and without creating it.
    """
    missing = f"{world.name}-missing"
    settings = world.settings.model_copy(update={"topics": world.settings.topics.model_copy(update={role: missing})})

    with pytest.raises(CannotStart, match=rf"{missing}.*touchstone topics apply"):
        start(settings, world, adapter)
    assert missing not in world.admin.list_topics()


def test_the_consumer_is_what_was_promised(world: RealWorld) -> None:
    """
    What kafka-python really has, after all its own defaults and corrections.
    """
    config = world.source()._consumer.config

    assert config["enable_auto_commit"] is False
    assert config["auto_offset_reset"] == "earliest"
    assert config["isolation_level"] == "read_committed"
    assert [assignor.name for assignor in config["partition_assignment_strategy"]] == ["cooperative-sticky"]


def test_nothing_is_committed_by_itself(world: RealWorld) -> None:
    """
    Neither reading nor closing commits.
    """
    world.upload(0, b"x")
    source = world.source()
    poll_until(source, 1)
    source.close()

    assert world.committed(0) is None


def test_an_upload_that_arrives_ends_the_wait(world: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A poll hears of the broker's answer, and needs not look for it: here no look would come before the test gives up.
    """
    source = world.source()
    world.upload(0, b"first")
    assert [b"first"] == [event.value for event in poll_until(source, 1)]
    monkeypatch.setattr(kafka_fetches, "LOOK_EVERY_S", 2 * DEADLINE_S)
    for number in range(3):
        threading.Timer(0.2, world.upload, (number, b"later")).start()
        began_s, found = time.monotonic(), list[bytes | None]()
        while not found and time.monotonic() < began_s + DEADLINE_S:
            found += [event.value for event in source.poll(room=5, wait_s=DEADLINE_S).events]

        assert [b"later"] == found


@pytest.mark.slow
def test_a_member_without_room_stays_a_member(world: RealWorld) -> None:
    """
    Paused for longer than a session lasts, it keeps its place and its partitions.
    """
    with Reader(world.source()) as reader:
        world.upload(0, b"first")
        assert reader.until(lambda: len(reader.events) == 1)
        before, reader.room = reader.membership, 0
        threading.Event().wait(world.settings.session_timeout_s + 1.5)
        world.upload(0, b"second")
        reader.after(2)
        during, reader.room = list(reader.values()), 100

        assert reader.until(lambda: len(reader.events) == 2)
        assert during == [b"first"]
        assert reader.membership == before
        assert reader.revoked == []


def test_an_aborted_upload_is_no_upload(world: RealWorld) -> None:
    """
    Whatever is promised about our own output, uploads are read committed.
    """
    producer = KafkaProducer(**world.client, transactional_id=f"{world.name}-uploader", retry_backoff_ms=5)
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(world.uploads, b"aborted", partition=0).add_errback(lambda _: None)
        producer.flush(DEADLINE_S)
        producer.abort_transaction()
    world.upload(0, b"committed")

    assert [event.value for event in poll_until(world.source(), 1)] == [b"committed"]


def test_a_new_owner_waits_for_the_transaction_of_the_one_before(world: RealWorld) -> None:
    """
    While offsets are pending in somebody's transaction nobody begins at the old ones.
    """
    for number in range(PARTITIONS):
        world.upload(number, b"old-%d" % number)
    world.upload(0, b"new-0")
    producer = KafkaProducer(**world.client, transactional_id=f"{world.name}-before", retry_backoff_ms=5)
    with closing(producer):
        with Reader(world.source()) as before:
            assert before.until(lambda: len(before.events) == PARTITIONS + 1)
            producer.init_transactions()
            producer.begin_transaction()
            offsets = {TopicPartition(world.uploads, 0): OffsetAndMetadata(1, "", -1)}
            producer.send_offsets_to_transaction(offsets, before.membership)
        with Reader(world.source()) as after:
            after.after(20)
            early = [event for event in after.events if event.partition.number == 0]
            producer.commit_transaction()

            assert after.until(lambda: b"new-0" in after.values())
            assert early == []
            assert b"old-0" not in after.values()


@pytest.mark.parametrize("transactional_id", [None, "worker-1"])
def test_what_the_broker_finds_too_large_is_told_with_its_position(
    world: RealWorld, transactional_id: str | None
) -> None:
    """
    The client lets it pass and the broker refuses it: the failure names the upload and what to do.
    """
    outbox = world.outbox(transactional_id)
    partition = Partition(world.uploads, 1)
    releases = [release(world.verdicts, partition, 17, b"x" * 1_300_000)]
    with Reader(world.source()) as reader:
        assert reader.until(lambda: reader.polls > 5)
        assert reader.membership is not None

        with pytest.raises(PublishFailed, match=rf"{world.uploads}-1 offset 17 .*touchstone topics plan"):  # noqa: PT012 - one of two ways
            if transactional_id is None:
                outbox.publish(releases)
                outbox.flush(DEADLINE_S)
            else:
                outbox.transact(releases, {partition: 18}, reader.membership)
    assert world.committed(1) is None


def test_a_static_member_keeps_its_partitions_over_a_restart(world: RealWorld) -> None:
    """
    It leaves and comes back within its session: nobody rebalances, and it reads on behind its commit.
    """
    static = world.settings.model_copy(update={"static_membership": True})
    with Reader(world.source(static, "worker-0")) as one:
        one.after(5)
        with Reader(world.source(static, "worker-1")) as two:
            assert one.until(lambda: len(one.revoked) == PARTITIONS // 2)
            for number in range(PARTITIONS):
                world.upload(number, b"%d" % number)
            assert two.until(lambda: len(two.events) == PARTITIONS // 2)
            assert two.call(lambda source: source.commit({two.events[0].partition: 1}))
        with Reader(world.source(static, "worker-1")) as again:
            assert again.until(lambda: len(again.events) == 1)
            one.after(20)

            assert again.events[0].partition == two.events[1].partition
            assert len(one.revoked) == PARTITIONS // 2


def test_one_instance_id_is_for_one_worker(world: RealWorld) -> None:
    """
    Whoever comes later with the same id takes its place; the earlier ends at its next commit.
    """
    static = world.settings.model_copy(update={"static_membership": True})
    world.upload(0, b"x")
    earlier = world.source(static, "worker-0")
    poll_until(earlier, 1)
    later = world.source(static, "worker-0")
    poll_until(later, 1)

    with pytest.raises(WorkerCrashed, match=r"service\.instance_id"):
        earlier.commit({Partition(world.uploads, 0): 1})


def test_the_broker_takes_offsets_from_nobody_and_we_do_not_ask(world: RealWorld) -> None:
    """
    A transaction with the membership of who never joined would go through, fenced by nothing; ours is refused.
    """
    nobody = ConsumerGroupMetadata(world.settings.group_id)
    producer = KafkaProducer(**world.client, transactional_id=f"{world.name}-careless", retry_backoff_ms=5)
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        offsets = {TopicPartition(world.uploads, 0): OffsetAndMetadata(5, "", -1)}
        producer.send_offsets_to_transaction(offsets, nobody)
        producer.commit_transaction()
    partition = Partition(world.uploads, 1)

    done = world.outbox("careful").transact(
        [release(world.verdicts, partition, 0)], {partition: 5}, GroupMembership(nobody)
    )

    assert not done
    assert [world.committed(0), world.committed(1)] == [5, None]
    assert world.records(world.verdicts) == []


def test_a_transaction_is_quick(world: RealWorld) -> None:
    """
    Measured at 6 ms; 200 ms with kafka-python's own pause between retries, and the messages not flushed beforehand.
    """
    outbox = world.outbox("worker-1")
    partition = Partition(world.uploads, 0)
    took_s = []
    with Reader(world.source()) as reader:
        world.upload(0, b"x")
        assert reader.until(lambda: len(reader.events) == 1)
        for at in range(15):
            assert reader.membership is not None
            releases = [release(world.verdicts, partition, at, key=b"%d" % key) for key in range(10)]
            begin_s = time.monotonic()
            assert outbox.transact(releases, {partition: at + 1}, reader.membership)
            took_s.append(time.monotonic() - begin_s)

    assert statistics.quantiles(took_s)[0] < 0.1  # a pause would be in each of them, what others do is not
