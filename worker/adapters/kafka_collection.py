"""
A Kafka topic as raw events, read once, from a moment or from its beginning, up to ends that are fixed at the start.

No group and no commits: what is read here is collected, not processed. How it is read is in ``kafka_stretches.py``.
"""

import time
from collections.abc import Iterator

from worker.adapters.kafka_client import require_crc32c, require_topics
from worker.adapters.kafka_source import raw_event
from worker.adapters.kafka_stretches import BEGINNING, Reading, ReadSoFar, whole_topic
from worker.domain import RawEvent
from worker.errors import WorkerCrashed
from worker.flow.replay_run import Bound
from worker.settings.tree import KafkaSettings


def collect(
    settings: KafkaSettings, topic: str, *, since_ms: int | None = None, progress: ReadSoFar = lambda _done, _of: None
) -> Iterator[RawEvent]:
    """
    The committed records of ``topic``, in order within each partition; ``since_ms`` is of the records' own time.

    Of an aborted transaction nothing is read, and nothing of what is written after the first record was asked for.
    Raises ``CannotStart`` when Kafka or the topic is not there, and ``WorkerCrashed`` when Kafka fails midway.
    """
    require_crc32c()
    require_topics(settings, [topic])
    since = BEGINNING if since_ms is None else Bound("time", since_ms)
    reading = Reading("touchstone-collect", WorkerCrashed, since=since)
    for records in whole_topic(settings, topic, reading, progress=progress):
        now_s = time.time()
        yield from (raw_event(record, now_s) for record in records)
