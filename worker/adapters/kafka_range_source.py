"""
A stretch of a Kafka topic as an event source: from fixed starts to fixed ends, with progress kept under a group's name.

What a live worker reads through its group is in ``kafka_source.py``; how a stretch is read, in ``kafka_stretches.py``.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import KafkaConsumer

from worker.adapters.kafka_client import (
    START_TIMEOUT_S,
    commit_offsets,
    leave,
    reading_config,
    require_crc32c,
    require_topics,
    starting,
)
from worker.adapters.kafka_records import read_all_records
from worker.adapters.kafka_source import fetch_bytes, raw_event
from worker.adapters.kafka_stretches import StretchReader, stretches_between
from worker.domain import Partition
from worker.flow.replay_run import Bound, Stretch
from worker.ports import GroupMembership, Polled
from worker.settings.tree import KafkaSettings

SILENCE_S: Final = 120.0
"""How long a topic may give nothing while its end is not reached; a broker that is away comes back sooner."""


class KafkaRangeSource:
    """
    Implements ``worker.ports.EventSource`` once ``read`` has said what to read; ends where that ends.

    Raises ``CannotStart`` when Kafka or the topic is not there. Records of aborted transactions are not read, and an
    open transaction bounds what ``end`` is.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, group_id: str, client_id: str) -> None:
        require_crc32c()
        require_topics(settings, [topic])
        self._topic = topic
        config = reading_config(settings, client_id=client_id, group_id=group_id) | {
            # What retention has removed must be told, not passed over.
            "auto_offset_reset": "none",
            "max_partition_fetch_bytes": fetch_bytes(settings),
            "bootstrap_timeout_ms": round(START_TIMEOUT_S * 1000),
        }
        with starting(settings, START_TIMEOUT_S):
            self._consumer = KafkaConsumer(**config)
            read_all_records(self._consumer)
        self._settings = settings
        self._reader = StretchReader(self._consumer, topic, silence_s=SILENCE_S, go_on="go on with --run-id")

    def stretches(self, since: Bound, until: Bound) -> dict[int, Stretch]:
        """
        What lies between two bounds at this moment, in every partition of the topic; some may be empty.
        """
        with starting(self._settings, START_TIMEOUT_S):
            return stretches_between(self._consumer, self._topic, since, until)

    def read(self, stretches: Mapping[int, Stretch]) -> None:
        """
        Read these, and nothing else, from now on.
        """
        with starting(self._settings, START_TIMEOUT_S):
            self._reader.begin(stretches)

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        At most ``room`` events below the ends. With ``room`` 0 it only waits: no group asks to be kept alive.
        """
        records: Sequence[Any] = []
        if room > 0 and not self.exhausted:
            records = self._reader.poll(limit=room, wait_s=wait_s)
        elif wait_s > 0:
            time.sleep(wait_s)
        now_s = time.time()
        return Polled(frozenset(), [raw_event(record, now_s) for record in records], GroupMembership(None))

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        Store progress under the group's name, for whoever watches lag; False when Kafka did not take it.
        """
        return commit_offsets(self._consumer, offsets, topic=self._topic)

    @property
    def exhausted(self) -> bool:
        """
        True when every partition was read to its end.
        """
        return self._reader.finished

    def close(self) -> None:
        """
        Release the connections. Commits nothing.
        """
        leave(self._consumer)
