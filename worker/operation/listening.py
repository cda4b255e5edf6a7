"""
A live worker listens for deletions on a thread beside its pipeline, and forgets what they name.

What forgetting is, is in ``forgetting.py``. Each worker hears every deletion, for its own memory's sake. Also where
none are announced to it, it follows those that it notices: of contents that were gone when they were judged, and of
bytes that others forgot while they were in flight here.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from worker.adapters.kafka_deletions import KafkaDeletions
from worker.domain import ContentHash, RawEvent
from worker.errors import EventUnreadable
from worker.flow.crew import Crew
from worker.operation.forgetting import Deletion, Forgotten, Stores, forget, read_deletion
from worker.operation.noting import Noticed, Noting
from worker.operation.stores import open_stores
from worker.ports import Forgetter, Recorder
from worker.settings.tree import Settings
from worker.telemetry.log import short_hash

log = structlog.get_logger(__name__)

Check = Callable[[], None]
"""Raises when the thread that it asks after has died."""

THREAD_ENDS_S: Final = 1.0
"""How long the thread may take to end when the worker leaves; what it did not forget is read again."""

HEARD_BEFORE_S: Final = 24 * 3600.0
"""Who hears all deletions at each start takes those that were told longer ago for followed."""

POLL_S: Final = 0.5
RETRY_S: Final = 5.0


def unwatched() -> None:
    """
    The check of a thread that was not asked for.
    """


class Memory(Forgetter, Protocol):
    """
    What this process remembers, and has in flight.
    """

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        Bytes that others forgot while they were in flight here, since the last call.
        """


@contextmanager
def listening(
    settings: Settings,
    memory: Memory,
    recorder: Recorder,
    noting: Noting,
    archive: Forgetter | None,
    *,
    client: str,
) -> Iterator[Check]:
    """
    Deletions are heard, where the settings say so, and followed while inside; ``memory`` is this process's own.

    ``archive`` is the configured one, which this process has open: a file of its is then not opened a second time.
    ``client`` is what Kafka calls this process. Those that are noticed are followed in any case where there is a Redis
    by which to notice them. Raises ``CannotStart`` when Kafka or the topic of deletions is not there.
    """
    if not (settings.deletions.enabled or settings.redis.enabled):
        yield unwatched
        return
    with ExitStack() as opened:
        source = None
        if settings.deletions.enabled:
            source = KafkaDeletions(settings.kafka, client_id=client, instance_id=settings.service.instance_id)
            opened.callback(source.close)
        stores = opened.enter_context(open_stores(settings, memory=memory, archive=archive))
        silent = opened.enter_context(open_stores(settings, memory=memory, archive=archive, marks=False))
        overlooked = Overlooked(noting.noticed, memory, silent)
        hears_again = settings.service.instance_id is None
        listener = DeletionListener(source, stores, recorder, overlooked, hears_again=hears_again)
        crew = Crew()
        crew.start("forget", listener.work)
        if source is not None:
            log.info("deletions.listening", topic=settings.kafka.topics.deletions, stores=sorted(stores.forgetters))
        try:
            yield crew.check
        finally:
            listener.end()
            _end(crew)


def _end(crew: Crew) -> None:
    left_behind = crew.join(THREAD_ENDS_S)
    if left_behind:
        log.warning("threads.left_behind", threads=left_behind, waited_s=THREAD_ENDS_S)


class DeletionSource(Protocol):
    """
    Where deletions come from; one thread uses it.
    """

    def poll(self, *, wait_s: float) -> Sequence[RawEvent]:
        """
        The next records, in order within each partition; waits at most ``wait_s``.
        """

    def commit(self, done: Sequence[RawEvent]) -> None:
        """
        Store that these were forgotten.
        """


@dataclass(frozen=True, slots=True)
class Overlooked:
    """
    Deletions that were noticed rather than heard: by the name of a content, or by bytes that others forgot.

    ``stores`` mark nothing as forgotten. The deletion itself did, and workers that answered each other's marks with
    marks of their own would never end.
    """

    noticed: Noticed
    memory: Memory
    stores: Stores

    def take(self) -> Sequence[Deletion]:
        """
        Those since the last call.
        """
        elsewhere = [Deletion(None, (content_hash,)) for content_hash in self.memory.forgotten_elsewhere()]
        return [*self.noticed.take(), *elsewhere]

    def add_again(self, deletions: Sequence[Deletion]) -> None:
        """
        These could not be followed.
        """
        self.noticed.add(deletions)


class DeletionListener:
    """
    Forgets what the deletions say, in their order, and commits them afterwards: at least once.

    While a store cannot be reached the same deletions are tried again every ``retry_s``, and none after them. Without a
    ``source`` only what was ``overlooked`` is followed. One that ``hears_again`` begins with the oldest deletion at
    each start, and takes those of more than a day ago for followed.
    """

    def __init__(
        self,
        source: DeletionSource | None,
        stores: Stores,
        recorder: Recorder,
        overlooked: Overlooked | None = None,
        *,
        hears_again: bool = False,
        retry_s: float = RETRY_S,
    ) -> None:
        self._source = source
        self._stores = stores
        self._recorder = recorder
        self._overlooked = overlooked
        self._hears_again = hears_again
        self._retry_s = retry_s
        self._ending = threading.Event()

    def work(self) -> None:
        """
        Listen until told to end; raises what ends the worker.
        """
        while not self._ending.is_set():
            if self._source is None:
                self._ending.wait(POLL_S)
            else:
                self._follow_announced(self._source)
            if self._overlooked is not None:
                self._follow_overlooked(self._overlooked)

    def end(self) -> None:
        """
        Let ``work`` return at its next turn; what it could not forget stays uncommitted.
        """
        self._ending.set()

    def _follow_announced(self, source: DeletionSource) -> None:
        events = source.poll(wait_s=POLL_S)
        if not events:
            return
        announced = [(event, found) for event in events if (found := self._read(event))]
        forgotten = self._forgotten([deletion for _, deletion in announced], self._stores)
        if forgotten is not None:
            _warn_of_unknown(announced, forgotten)
            source.commit(events)

    def _follow_overlooked(self, overlooked: Overlooked) -> None:
        found = overlooked.take()
        if self._forgotten(found, overlooked.stores) is None:
            overlooked.add_again(found)

    def _read(self, event: RawEvent) -> Deletion | None:
        try:
            deletion = read_deletion(event)
        except EventUnreadable as unreadable:
            # Nobody can be told which image was meant; whoever runs the platform must be.
            partition = event.partition
            self._recorder.count("forgotten_total", store="event", result="unreadable")
            log.error(  # noqa: TRY400 - the record is at fault, and a traceback says nothing of it
                "deletion.unreadable",
                topic=partition.topic,
                partition=partition.number,
                offset=event.offset,
                code=unreadable.code,
                detail=unreadable.detail,
            )
            return None
        return replace(deletion, was_followed=self._hears_again and _told_before(event, HEARD_BEFORE_S))

    def _forgotten(self, deletions: Sequence[Deletion], stores: Stores) -> Forgotten | None:
        """
        Forget these, however long it takes; None when told to end before that.
        """
        told = False
        while deletions:
            forgotten = forget(deletions, stores, self._recorder)
            if not forgotten.failed:
                log.info(
                    "contents.forgotten",
                    contents=len(deletions),
                    hashes=forgotten.hashes,
                    unknown=forgotten.unknown,
                    **{f"removed_{store}": number for store, number in forgotten.removed.items()},
                )
                return forgotten
            if not told:  # once for each outage
                log.error("contents.not_forgotten", contents=len(deletions), failed=dict(forgotten.failed))
                told = True
            if self._ending.wait(self._retry_s):
                return None
        return Forgotten()


def _told_before(event: RawEvent, ago_s: float) -> bool:
    """
    Whether the record was written longer ago: when it was told, however long before that the content went.
    """
    return event.timestamp_ms is not None and event.timestamp_ms / 1000 < time.time() - ago_s


def _warn_of_unknown(announced: Sequence[tuple[RawEvent, Deletion]], forgotten: Forgotten) -> None:
    """
    Say where the deletions lie that named nothing known, for they are committed: the content's id stands there.
    """
    unknown = frozenset(forgotten.unknown_contents)
    for event, deletion in announced:
        content = deletion.content
        if content is not None and content in unknown and not deletion.was_followed:
            log.warning(
                "deletion.unknown",
                topic=event.partition.topic,
                partition=event.partition.number,
                offset=event.offset,
                content_id_hash=short_hash(content.content_id),
                tenant=content.tenant_id,
                advice="if it was judged here, read its content_id at this offset of the topic, and find its bytes "
                "with touchstone forget CONTENT_ID --tenant TENANT --search-verdicts --publish",
            )
