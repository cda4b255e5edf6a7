"""
Sightings in a real topic: what a replay reads of it, what tombstones do, and what a broken broker or record costs.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.kafka_reader import Counts
from tests.sightings import SHIFT, a_hash, a_scope, a_sighting, same
from worker.adapters.kafka_sightings import KafkaSightings, SightingPublisher, keys_of, record_of
from worker.adapters.kafka_stretches import ReadSoFar
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import WantedTopic, plan_topics
from worker.dev.servers import KafkaAt
from worker.domain import ContentHash
from worker.errors import ArchiveUnavailable, CannotStart
from worker.operation.keeping import kept_embeddings, open_to_forget
from worker.settings.tree import KafkaSettings, Settings

pytestmark = pytest.mark.servers

PARTITIONS = 3
CAT, DOG = a_hash("cat"), a_hash("dog")

REPLAY = """
import sys
from tests.sightings import a_hash, a_scope
from worker.adapters.kafka_sightings import KafkaSightings
from worker.settings.tree import KafkaSettings
from worker.telemetry.metrics import InMemoryRecorder

def told(read, total):
    if 0 < total == read and len(sys.argv) == 4:
        print("read", flush=True)
        input()

settings = KafkaSettings.model_validate({"bootstrap_servers": sys.argv[1], "topics": {"embeddings": sys.argv[2]}})
archive = KafkaSightings(settings, a_scope(), recorder=InMemoryRecorder(), progress=told)
print(len(archive.recall([a_hash("0"), a_hash("none")])), flush=True)
input()
"""
"""A process that reads the topic; with a third argument it waits before it has read the topic to its end."""


@dataclass(frozen=True, slots=True)
class EmbeddingsTopic:
    """
    A fresh compacted topic.
    """

    settings: KafkaSettings
    stack: ExitStack

    def archive(self, counts: Counts | None = None, progress: ReadSoFar | None = None) -> KafkaSightings:
        """
        An archive over it, opened now.
        """
        opened = KafkaSightings(self.settings, a_scope(), recorder=counts or Counts(), progress=progress)
        return self.stack.enter_context(closing(opened))

    def records(self) -> list[tuple[int, bytes, bytes | None]]:
        """
        Partition, key and value of all records, in order within each partition.
        """
        topic = self.settings.topics.embeddings
        with closing(KafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers)) as reader:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            reader.assign(partitions)
            reader.seek_to_beginning(*partitions)
            ends = reader.end_offsets(partitions)
            found: list[Any] = []
            while any(reader.position(one) < ends[one] for one in partitions):
                found += [record for records in reader.poll(timeout_ms=500).values() for record in records]
        found.sort(key=lambda record: (record.partition, record.offset))
        return [(record.partition, record.key, record.value) for record in found]


@pytest.fixture
def topic(kafka: KafkaAt, topic_name: str) -> Iterator[EmbeddingsTopic]:
    """
    A topic that nobody else uses.
    """
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": kafka.bootstrap_servers, "topics": {"embeddings": topic_name}}
    )
    with ExitStack() as stack:
        topics = stack.enter_context(topics_of(settings))
        wanted = WantedTopic(topic_name, PARTITIONS, 1, {"cleanup.policy": "compact"})
        topics.apply(plan_topics([wanted], {}))
        stack.callback(topics.delete, [topic_name])
        yield EmbeddingsTopic(settings, stack)


def test_a_replay_reads_the_topic_once_up_to_its_end(topic: EmbeddingsTopic) -> None:
    """
    All that was there when it first asked, with its progress told; what comes later is not seen.
    """
    names = [a_hash(str(number)) for number in range(500)]
    writer, counts, told = topic.archive(), Counts(), list[tuple[int, int]]()
    writer.keep({name: a_sighting(name) for name in names})
    replay = topic.archive(counts, lambda read, total: told.append((read, total)))
    first = replay.recall(names[:100])
    writer.keep({CAT: a_sighting(CAT)})
    rest = replay.recall([*names[100:], CAT])

    assert {*names[:100]} == set(first)
    assert {*names[100:]} == set(rest)
    assert all(same(sighting, a_sighting(name)) for name, sighting in {**first, **rest}.items())
    assert (0, 500) == told[0]
    assert (500, 500) == told[-1]
    assert [*told] == sorted(told)
    assert 500 == counts.total("archive_reads_total", result="hit")
    assert 1 == counts.total("archive_reads_total", result="miss")


def test_records_of_the_same_bytes_are_in_one_partition(topic: EmbeddingsTopic) -> None:
    """
    With the shift and without, and their tombstones behind them: a later one never stands before an earlier one.
    """
    names = [a_hash(str(number)) for number in range(30)]
    archive = topic.archive()
    archive.keep({name: a_sighting(name) for name in names})
    archive.keep({name: a_sighting(name, shift=SHIFT) for name in names})
    archive.forget(names)
    where: dict[ContentHash, set[int]] = {}
    values: dict[ContentHash, list[bool]] = {}
    for partition, key, value in topic.records():
        name = ContentHash(key[:64].decode())
        where.setdefault(name, set()).add(partition)
        values.setdefault(name, []).append(value is not None)

    assert {1} == {len(partitions) for partitions in where.values()}
    assert PARTITIONS == len(set.union(*where.values()))
    assert {(True, True, False, False)} == {tuple(found) for found in values.values()}


def test_forgetting_needs_no_encoder(topic: EmbeddingsTopic) -> None:
    """
    Tombstones under both keys; a replay that starts afterwards knows nothing, also of what was seen with its shift.
    """
    settings = Settings.model_validate({"kafka": topic.settings.model_dump(), "embeddings": {"keep": "topic"}})
    with kept_embeddings(settings, a_scope(), Counts()) as archive:
        assert archive is not None
        archive.keep({CAT: a_sighting(CAT, shift=SHIFT), DOG: a_sighting(DOG)})
    with open_to_forget(settings) as forgetter:
        gone = forgetter.forget([CAT])

    assert 2 == gone
    assert {key for _, key, value in topic.records() if value is None} == set(keys_of(CAT))
    assert [DOG] == list(topic.archive().recall([CAT, DOG]))


def test_damaged_and_foreign_records_are_passed_over(topic: EmbeddingsTopic) -> None:
    """
    Whatever else lies in the topic costs nothing but itself: a damaged value is counted, the rest is nobody's.
    """
    archive, counts = topic.archive(), Counts()
    archive.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG)})
    (partition, key, value) = next(record for record in topic.records() if record[1] == CAT.encode())
    assert value is not None
    name = topic.settings.topics.embeddings
    with closing(KafkaProducer(bootstrap_servers=topic.settings.bootstrap_servers, acks="all")) as producer:
        producer.send(name, key=key, value=value[:60] + bytes([value[60] ^ 1]) + value[61:], partition=partition)
        for odd_key, odd_value in ((b"", b"x"), (b"short", b"x"), (DOG.encode(), b"x"), (b"\xff" * 64, None)):
            producer.send(name, key=odd_key, value=odd_value, partition=0)
        producer.send(name, key=a_hash("eel").encode(), value=value, partition=0)
        producer.flush()
    found = topic.archive(counts).recall([CAT, DOG, a_hash("eel")])

    assert [DOG] == list(found)
    assert 2 == counts.total("archive_reads_total", result="invalid")


def test_what_the_broker_refuses_is_told_and_later_records_are_kept(topic: EmbeddingsTopic) -> None:
    """
    A record that is too large fails its batch; a new producer is begun, and the next batch goes through.
    """
    publisher = topic.stack.enter_context(closing(SightingPublisher(topic.settings, client_id="test")))
    with pytest.raises(ArchiveUnavailable, match="did not take 1 records"):
        publisher.publish([(CAT.encode(), b"x" * 4_000_000)])
    publisher.publish([(CAT.encode(), b"x")])

    assert [b"x"] == [value for _, _, value in topic.records()]


def test_a_topic_that_is_not_there_is_named(kafka: KafkaAt, topic_name: str) -> None:
    """
    A worker that should keep does not start without the topic, and says what makes it.
    """
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": kafka.bootstrap_servers, "topics": {"embeddings": topic_name}}
    )

    with pytest.raises(CannotStart, match=f"no topic {topic_name}"):
        KafkaSightings(settings, a_scope(), recorder=Counts())


def test_what_is_forgotten_during_the_reading_is_for_the_next_replay(topic: EmbeddingsTopic) -> None:
    """
    A replay knows the topic as it was when it began to read; one that starts after the tombstone knows nothing.
    """
    writer = topic.archive()
    writer.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG)})

    def forget_at_first(read: int, _total: int) -> None:
        if read == 0:
            writer.forget([CAT])

    reading = topic.archive(progress=forget_at_first)
    during = reading.recall([CAT, DOG])

    assert {CAT, DOG} == set(during)
    assert [DOG] == list(topic.archive().recall([CAT, DOG]))


def test_an_open_transaction_hides_no_tombstone(topic: EmbeddingsTopic) -> None:
    """
    What was forgotten behind the beginning of somebody else's unfinished transaction is forgotten all the same.

    Brokers let nobody who wants committed records see past it. We write to the topic without transactions.
    """
    writer, name = topic.archive(), topic.settings.topics.embeddings
    writer.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG)})
    foreign = KafkaProducer(bootstrap_servers=topic.settings.bootstrap_servers, transactional_id=f"{name}-foreign")
    with closing(foreign):
        foreign.init_transactions()
        foreign.begin_transaction()
        for partition in range(PARTITIONS):
            foreign.send(name, key=b"another's", value=b"x", partition=partition)
        foreign.flush()
        writer.forget([CAT])
        behind_it = topic.archive().recall([CAT, DOG])
        foreign.abort_transaction()

    assert [DOG] == list(behind_it)
    assert [DOG] == list(topic.archive().recall([CAT, DOG]))


def test_a_sighting_whose_transaction_was_aborted_is_read_as_any_other(topic: EmbeddingsTopic) -> None:
    """
    The price of seeing past open transactions: it was measured all the same, and a tombstone behind it removes it.
    """
    name = topic.settings.topics.embeddings
    key, value = record_of(CAT, a_sighting(CAT), a_scope())
    foreign = KafkaProducer(bootstrap_servers=topic.settings.bootstrap_servers, transactional_id=f"{name}-foreign")
    with closing(foreign):
        foreign.init_transactions()
        foreign.begin_transaction()
        foreign.send(name, key=key, value=value, partition=int(key[:8], 16) % PARTITIONS)
        foreign.flush()
        foreign.abort_transaction()
    before = topic.archive().recall([CAT])
    topic.archive().forget([CAT])

    assert same(before[CAT], a_sighting(CAT))
    assert {} == topic.archive().recall([CAT])


@pytest.mark.parametrize("while_reading", [[], ["wait"]], ids=["after reading", "while reading"])
def test_a_replay_that_is_killed_leaves_no_embeddings(
    topic: EmbeddingsTopic, tmp_path: Path, while_reading: list[str]
) -> None:
    """
    Its copy of the topic has no name in the folder for temporary files, neither while it lives nor after SIGKILL.
    """
    names = [a_hash(str(number)) for number in range(2_000)]
    topic.archive().keep({name: a_sighting(name) for name in names})
    settings = topic.settings
    command = [sys.executable, "-c", REPLAY, settings.bootstrap_servers, settings.topics.embeddings, *while_reading]
    environ = {name: value for name, value in os.environ.items() if name != "SQLITE_TMPDIR"}
    with subprocess.Popen(
        command, env=environ | {"TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        while_it_lives = list(tmp_path.iterdir())
        process.send_signal(signal.SIGKILL)

    assert ("read\n" if while_reading else "1\n") == told
    assert [] == while_it_lives
    assert [] == list(tmp_path.iterdir())
