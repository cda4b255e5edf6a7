"""
A live worker listens for deletions on a thread beside its pipeline, and forgets what they name.

What forgetting is, is in ``forgetting.py``. Each worker hears every deletion, for its own memory's sake.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, Protocol

import structlog

from worker.adapters.kafka_deletions import KafkaDeletions
from worker.domain import RawEvent
from worker.errors import EventUnreadable
from worker.flow.crew import Crew
from worker.operation.forgetting import Deletion, Stores, forget, read_deletion
from worker.operation.stores import open_stores
from worker.ports import Forgetter, Recorder
from worker.settings.tree import Settings

log = structlog.get_logger(__name__)

Check = Callable[[], None]
"""Raises when the thread that it asks after has died."""

THREAD_ENDS_S: Final = 1.0
"""How long the thread may take to end when the worker leaves; what it did not forget is read again."""

POLL_S: Final = 0.5
RETRY_S: Final = 5.0


def unwatched() -> None:
    """
    The check of a thread that was not asked for.
    """


@contextmanager
def listening(settings: Settings, memory: Forgetter, recorder: Recorder, *, client_id: str) -> Iterator[Check]:
    """
    Deletions are heard and followed while inside, where the settings say so; ``memory`` is this process's own.

    Raises ``CannotStart`` when Kafka or the topic of deletions is not there.
    """
    if not settings.deletions.enabled:
        yield unwatched
        return
    source = KafkaDeletions(settings.kafka, client_id=client_id, instance_id=settings.service.instance_id)
    with closing(source), open_stores(settings, memory=memory) as stores:
        listener = DeletionListener(source, stores, recorder)
        crew = Crew()
        crew.start("forget", listener.work)
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


class DeletionListener:
    """
    Forgets what the deletions say, in their order, and commits them afterwards: at least once.

    While a store cannot be reached the same deletions are tried again every ``retry_s``, and none after them.
    """

    def __init__(self, source: DeletionSource, stores: Stores, recorder: Recorder, *, retry_s: float = RETRY_S) -> None:
        self._source = source
        self._stores = stores
        self._recorder = recorder
        self._retry_s = retry_s
        self._ending = threading.Event()

    def work(self) -> None:
        """
        Listen until told to end; raises what ends the worker.
        """
        while not self._ending.is_set():
            events = self._source.poll(wait_s=POLL_S)
            if events and self._forgotten([found for event in events if (found := self._read(event))]):
                self._source.commit(events)

    def end(self) -> None:
        """
        Let ``work`` return at its next turn; what it could not forget stays uncommitted.
        """
        self._ending.set()

    def _read(self, event: RawEvent) -> Deletion | None:
        try:
            return read_deletion(event)
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

    def _forgotten(self, deletions: Sequence[Deletion]) -> bool:
        """
        Forget these, however long it takes; False when told to end before that.
        """
        told = False
        while deletions:
            forgotten = forget(deletions, self._stores, self._recorder)
            if not forgotten.failed:
                log.info(
                    "contents.forgotten",
                    contents=len(deletions),
                    hashes=forgotten.hashes,
                    unknown=forgotten.unknown,
                    **{f"removed_{store}": number for store, number in forgotten.removed.items()},
                )
                return True
            if not told:  # once for each outage
                log.error("contents.not_forgotten", contents=len(deletions), failed=dict(forgotten.failed))
                told = True
            if self._ending.wait(self._retry_s):
                return False
        return True
