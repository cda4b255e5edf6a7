"""
Sightings kept for replays in a compacted Kafka topic: written by live workers, read once, from end to end, by a replay.

A record's key is the hash of the bytes (with a mark where the shift was measured), so that whoever forgets them need
know no encoder; its partition follows from the hash, so that a tombstone comes behind all that it removes.
"""

import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    connection_config,
    require_crc32c,
    require_topics,
    starting,
    told,
)
from worker.adapters.kafka_outbox import producer_config
from worker.adapters.sighting_codec import SightingScope, pack_facts, pack_measured, scope_digest
from worker.adapters.sighting_file import SightingFile
from worker.adapters.sighting_rows import Row, SightingRows
from worker.adapters.system_clock import SystemClock
from worker.domain import ContentHash, Sighting
from worker.errors import ArchiveUnavailable, CannotStart
from worker.ports import Recorder
from worker.settings.tree import KafkaSettings

RECORD_MAGIC: Final = b"TSa1"
SHIFTED: Final = b":shift"
POLL_MS: Final = 500
SILENCE_S: Final = 60.0
"""How long a topic may give nothing, while its end is not reached, before reading it is given up."""

_HEAD: Final = struct.Struct("<4s16sI")
_HASH_DIGITS: Final = 64

ReadSoFar = Callable[[int, int], None]
"""Told how many records of how many are read."""


class KafkaSightings:
    """
    The ``SightingArchive`` over ``kafka.topics.embeddings``. Any thread may call any method; one waits for the other.

    The first ``recall`` reads the whole topic, up to the end that it had then, into a temporary file; what is kept
    later is not seen. Retention is the topic's. Raises ``CannotStart`` when Kafka or the topic is not there.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        scope: SightingScope,
        *,
        recorder: Recorder,
        client_id: str = "touchstone",
        progress: ReadSoFar | None = None,
    ) -> None:
        self._settings = settings
        self._scope = scope
        self._recorder = recorder
        self._progress = progress
        self._lock = threading.Lock()
        self._publisher = SightingPublisher(settings, client_id=client_id)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._read: SightingFile | None = None

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What is kept of these bytes. Raises ``ArchiveUnavailable``.
        """
        with self._lock:
            if self._read is None:
                self._read = self._load()
        return self._read.recall(hashes)

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        Keep these sightings; when it returns every replica has them. Raises ``ArchiveUnavailable``.
        """
        self._publisher.publish([record_of(*one, self._scope) for one in sightings.items()])

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Write the tombstones of these bytes, which hold for every encoder; how many. Raises ``ArchiveUnavailable``.

        A replay that starts now knows nothing of them. The brokers remove them within the topic's
        ``max.compaction.lag.ms``.
        """
        return self._publisher.forget(hashes)

    def close(self) -> None:
        """
        Release the producer and the temporary file.
        """
        self._publisher.close()
        with self._lock:
            if self._read is not None:
                self._read.close()
            if self._folder is not None:
                self._folder.cleanup()

    def _load(self) -> SightingFile:
        self._folder = tempfile.TemporaryDirectory(prefix="touchstone-embeddings-")
        path = Path(self._folder.name) / "embeddings.sqlite"
        digest = scope_digest(self._scope)
        with closing(SightingRows(path)) as rows:
            for records in _whole_topic(self._settings, self._progress or (lambda _read, _total: None)):
                _take(rows, records, digest)
        return SightingFile(path, self._scope, recorder=self._recorder, clock=SystemClock(), retention_s=None)


class SightingPublisher:
    """
    Puts records into the embeddings topic and waits for their acknowledgement; knows no encoder.

    Raises ``CannotStart`` when Kafka or the topic is not there. After a failure a new producer is begun, because
    kafka-python's idempotent one refuses what comes behind a message that was lost.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        require_crc32c()
        require_topics(settings, [settings.topics.embeddings])
        self._settings = settings
        self._topic = settings.topics.embeddings
        self._client_id = f"{client_id}-embeddings"
        self._lock = threading.Lock()
        self._producer: Any = None

    def publish(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """
        Publish keys with their values, in order within each hash. Raises ``ArchiveUnavailable``.
        """
        timeout_s = self._settings.publish_timeout_s
        with self._lock:
            try:
                producer, count = self._begun()
                sent = [
                    producer.send(self._topic, key=key, value=value, partition=int(key[:8], 16) % count)
                    for key, value in records
                ]
                with suppress(kafka_errors.KafkaTimeoutError):  # told by the futures
                    producer.flush(timeout_s)
                for future in sent:
                    future.get(timeout_s)
            except kafka_errors.KafkaError as error:
                self._end()
                raise ArchiveUnavailable(
                    f"topic {self._topic} did not take {len(records)} records: {told(error)}"
                ) from error
            except CannotStart as error:
                raise ArchiveUnavailable(str(error)) from error

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Write the tombstones of these bytes, which hold for every encoder; how many. Raises ``ArchiveUnavailable``.
        """
        keys = [key for content_hash in sorted(set(hashes)) for key in keys_of(content_hash)]
        self.publish([(key, None) for key in keys])
        return len(keys)

    def close(self) -> None:
        """
        Release the producer.
        """
        with self._lock:
            self._end()

    def _begun(self) -> tuple[Any, int]:
        """
        The producer, and how many partitions the topic has.
        """
        if self._producer is None:
            config = producer_config(self._settings, client_id=self._client_id, transactional_id=None) | {
                "bootstrap_timeout_ms": round(START_TIMEOUT_S * 1000),
                "max_block_ms": round(START_TIMEOUT_S * 1000),
            }
            with starting(self._settings, START_TIMEOUT_S):
                self._producer = KafkaProducer(**config)
        with starting(self._settings, START_TIMEOUT_S):
            return self._producer, len(self._producer.partitions_for(self._topic))

    def _end(self) -> None:
        if self._producer is not None:
            with suppress(kafka_errors.KafkaTimeoutError):  # what is left was told as not kept
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None


def keys_of(content_hash: ContentHash) -> tuple[bytes, bytes]:
    """
    The keys under which these bytes may lie: without their shift, and with it.

    Two, so that compaction does not remove a sighting with its shift for a later one without.
    """
    return content_hash.encode(), content_hash.encode() + SHIFTED


def record_of(content_hash: ContentHash, sighting: Sighting, scope: SightingScope) -> tuple[bytes, bytes]:
    """
    Key and value of a sighting. Raises ``ValueError`` for one that is not of this scope.
    """
    measured = pack_measured(sighting, content_hash, scope)
    head = _HEAD.pack(RECORD_MAGIC, scope_digest(scope), len(measured))
    value = head + measured + pack_facts(sighting.facts, content_hash, scope)
    return keys_of(content_hash)[sighting.shift is not None], value


def row_of(key: bytes, value: bytes, digest: bytes) -> Row | None:
    """
    What a record holds, still packed; None for other scopes' records and for what is none of ours.
    """
    name = hash_of(key)
    if name is None or len(value) < _HEAD.size:
        return None
    magic, scope, length = _HEAD.unpack_from(value)
    if (magic, scope) != (RECORD_MAGIC, digest):
        return None
    ends = _HEAD.size + length
    return Row(name, digest, key.endswith(SHIFTED), 0.0, value[_HEAD.size : ends], value[ends:])


def hash_of(key: bytes) -> ContentHash | None:
    """
    Whose bytes a key names; None for keys that are none of ours.
    """
    digits = key[:_HASH_DIGITS].decode("ascii", "replace")
    ours = key[_HASH_DIGITS:] in {b"", SHIFTED} and len(digits) == _HASH_DIGITS
    return ContentHash(digits) if ours and set(digits) <= set("0123456789abcdef") else None


def _take(rows: SightingRows, records: Sequence[Any], digest: bytes) -> None:
    """
    Put what is kept and forget what was buried, in the order of the records.
    """
    waiting: list[Row] = []
    for record in records:
        key = record.key or b""
        if record.value is not None:
            row = row_of(key, record.value, digest)
            waiting += [] if row is None else [row]
        elif (name := hash_of(key)) is not None:
            waiting = [row for row in waiting if row.content_hash != name]
            rows.remove([name])
    rows.put(waiting)


def _whole_topic(settings: KafkaSettings, progress: ReadSoFar) -> Iterator[Sequence[Any]]:
    """
    All records up to the end that the topic has now, in order within each partition.
    """
    topic = settings.topics.embeddings
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **connection_config(settings),
            client_id="touchstone-embeddings",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
    with closing(consumer):
        with starting(settings, START_TIMEOUT_S):
            partitions = [
                TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())
            ]
            starts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
        total, at, news_s = sum(ends.values()) - sum(starts.values()), dict(starts), time.monotonic()
        progress(0, total)
        while any(at[partition] < ends[partition] for partition in partitions):
            for partition, records in _polled(consumer).items():
                yield [record for record in records if record.offset < ends[partition]]
            # The position and not the last record's offset: what was compacted away has offsets too.
            now_at = {partition: min(consumer.position(partition), ends[partition]) for partition in partitions}
            news_s = time.monotonic() if now_at != at else news_s
            if time.monotonic() - news_s > SILENCE_S:
                raise ArchiveUnavailable(
                    f"Kafka gave nothing of topic {topic} for {SILENCE_S:g} s before its end; look after the brokers "
                    "that lead it, and start again"
                )
            at = now_at
            progress(sum(at.values()) - sum(starts.values()), total)


def _polled(consumer: Any) -> Mapping[TopicPartition, Any]:  # noqa: ANN401 - kafka-python is untyped
    try:
        records: Mapping[TopicPartition, Any] = consumer.poll(timeout_ms=POLL_MS, max_records=1_000)
    except kafka_errors.KafkaError as error:
        if not error.retriable:
            raise ArchiveUnavailable(f"Kafka refused to give kept embeddings: {told(error)}") from error
        # A broker that is away is waited for, as long as a silence may last.
        return {}
    return records
