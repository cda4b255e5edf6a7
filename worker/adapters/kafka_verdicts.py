"""
Verdicts read back from a Kafka topic, once, up to end offsets that are fixed at the start.

How a topic is read that way is ``kafka_collection.py``; what a line or a record must be, ``verdict_lines.py``.
"""

from collections.abc import Iterator
from datetime import datetime

from schemas.verdict import ImageVerdictV1
from worker.adapters.kafka_collection import collect
from worker.adapters.verdict_lines import ReadSoFar, verdict_of
from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings


def read_verdicts(
    settings: KafkaSettings,
    topic: str,
    *,
    since: datetime | None = None,
    progress: ReadSoFar = lambda _done, _of: None,
) -> Iterator[ImageVerdictV1]:
    """
    The committed verdicts of ``topic``, partition by partition in order; ``since`` is of the records' own time.

    What is written after the first of them was asked for is not read, and tombstones are passed over. Raises
    ``CannotStart`` when Kafka or the topic is not there, or a record is no verdict (naming partition and offset), and
    ``WorkerCrashed`` when Kafka fails midway.
    """
    since_ms = None if since is None else round(since.timestamp() * 1000)
    for raw in collect(settings, topic, since_ms=since_ms, progress=progress):
        where = f"topic {topic}, partition {raw.partition.number}, offset {raw.offset}"
        if raw.fault is not None:
            raise CannotStart(f"{where}: {raw.fault}. Expected a verdict as JSON; name another topic or a later time")
        if raw.value is not None:
            yield verdict_of(raw.value, where=where)
