"""
Sightings kept for replays in a compacted Kafka topic: written by live workers, read once, from end to end, by a replay.

A record's key is the hash of the bytes (with a mark where the shift was measured), so that whoever forgets them need
know no encoder; its partition follows from the hash, so that a tombstone comes behind all that it removes.
"""

import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaProducer

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    require_crc32c,
    require_topics,
    starting,
    told,
)
from worker.adapters.kafka_outbox import producer_config
from worker.adapters.kafka_records import fault_of
from worker.adapters.kafka_stretches import Reading, ReadSoFar, whole_topic
from worker.adapters.sighting_codec import SightingScope, pack_facts, pack_measured, scope_digest
from worker.adapters.sighting_file import recall_from
from worker.adapters.sighting_rows import Row, SightingRows
from worker.domain import ContentHash, Sighting
from worker.errors import ArchiveUnavailable, CannotStart
from worker.ports import Recorder
from worker.settings.tree import KafkaSettings
from worker.views import has_shift

RECORD_MAGIC: Final = b"TSa1"
SHIFTED: Final = b":shift"

_HEAD: Final = struct.Struct("<4s16sI")
_HASH_DIGITS: Final = 64

# Also what is not committed. We write without transactions; of another's open one the brokers let nobody see past its
# beginning who asks for committed records, and a tombstone that lay behind would not be heeded.
_READING: Final = Reading("touchstone-embeddings", ArchiveUnavailable, isolation="read_uncommitted")


class KafkaSightings:
    """
    The ``SightingArchive`` over ``kafka.topics.embeddings``. Any thread may call any method; one waits for the other.

    The first ``recall`` reads the whole topic, up to the end that it had then, into a file without a name, of which
    nothing is left when the process ends; what is kept or forgotten later is not seen. Retention is the topic's.
    Raises ``CannotStart`` when Kafka or the topic is not there.
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
        self._read: SightingRows | None = None

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What is kept of these bytes. Raises ``ArchiveUnavailable``.
        """
        with self._lock:
            if self._read is None:
                self._read = self._load()
        return recall_from(self._read, hashes, self._scope, recorder=self._recorder)

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
        Release the producer and what was read.
        """
        self._publisher.close()
        with self._lock:
            if self._read is not None:
                self._read.close()

    def _load(self) -> SightingRows:
        topic, digest = self._settings.topics.embeddings, scope_digest(self._scope)
        progress = self._progress or (lambda _read, _total: None)
        try:
            rows = SightingRows(None)
            try:
                for records in whole_topic(self._settings, topic, _READING, progress=progress):
                    _take(rows, records, digest)
            except BaseException:
                rows.close()
                raise
        except CannotStart as error:
            raise ArchiveUnavailable(str(error)) from error
        return rows


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
    return keys_of(content_hash)[has_shift(sighting)], value


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
        if fault_of(record.headers) is not None:
            # None of ours, and no tombstone though its value may be missing.
            continue
        key = record.key or b""
        if record.value is not None:
            row = row_of(key, record.value, digest)
            waiting += [] if row is None else [row]
        elif (name := hash_of(key)) is not None:
            waiting = [row for row in waiting if row.content_hash != name]
            rows.remove([name])
    rows.put(waiting)
