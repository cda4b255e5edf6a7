"""
What is known of the uploads of a run from before: their latest verdicts, and what was kept of their images.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

import structlog

from worker.adapters.kafka_collection import collect
from worker.adapters.past_upload_index import PastUploadIndex
from worker.adapters.system_clock import SystemClock
from worker.app import Memories, open_cache, scope_of
from worker.flow.replay_run import RunPlan
from worker.instruments import Instruments
from worker.operation.keeping import kept_embeddings
from worker.replay.bounds import parse_bound
from worker.replay.order import Progress
from worker.replay.untouched import ReadOnlyCache
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder

CLOCKS_DIFFER_MS: Final = 3_600_000
"""A verdict is younger than its upload, by clocks that may differ so much."""

log = structlog.get_logger(__name__)


@contextmanager
def memories_of(
    settings: Settings, instruments: Instruments, plan: RunPlan, *, write_cache: bool, progress: Progress
) -> Iterator[Memories]:
    """
    The latest verdicts, read up to now; the cache, only to be read unless ``write_cache``; and the archive.

    Raises ``CannotStart`` for what cannot be opened.
    """
    recorder = InMemoryRecorder()
    cache = open_cache(settings, instruments, recorder=recorder, clock=SystemClock())
    if cache is not None and not write_cache:
        cache = ReadOnlyCache(cache)
    reading = partial(progress, "reading kept embeddings")
    kept = kept_embeddings(settings, scope_of(settings, instruments), recorder, progress=reading)
    with closing(PastUploadIndex(plan.topic)) as past, kept as archive:
        _read_past(settings, plan, past, progress=progress)
        yield Memories(cache, past, archive)


def _read_past(settings: Settings, plan: RunPlan, past: PastUploadIndex, *, progress: Progress) -> None:
    """
    Enter the live verdicts up to now, once. Of a range that begins at a time, those from an hour before it.

    Raises ``CannotStart`` where Kafka or the topic is not there.
    """
    topic = settings.kafka.topics.verdicts
    since = parse_bound(plan.since, "from")
    early_ms = None
    if since.kind == "time" and since.value is not None:
        early_ms = max(0, since.value - CLOCKS_DIFFER_MS)
    reading = partial(progress, "reading past verdicts")
    records = collect(settings.kafka, topic, since_ms=early_ms, progress=reading)
    # What cannot be read may have no value, and is no tombstone for that: no bytes are no verdict, and are counted.
    past.add(record.value if record.fault is None else b"" for record in records)
    if past.unreadable:
        log.warning("past.unreadable", topic=topic, records=past.unreadable, advice="their uploads are fetched again")
