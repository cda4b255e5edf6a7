"""
A live worker notes which bytes each content had, so that a content can be forgotten by its name.

A content that is gone by then is noticed here, and forgotten by ``listening.py``. The index itself is behind
``worker.contents.ContentIndex``.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.adapters.redis_contents import RedisContents
from worker.contents import ContentIndex, ContentName
from worker.domain import ContentHash, RawEvent, Sighting
from worker.errors import EventUnreadable, StoreUnavailable
from worker.flow.crew import Crew
from worker.flow.inbox import Inbox
from worker.flow.judging import Judge
from worker.flow.travellers import Failed, Known
from worker.operation.forgetting import Deletion, count_damaged, forget
from worker.operation.stores import noted_for_s, open_stores
from worker.outcomes import Outcome
from worker.ports import Forgetter, Recorder
from worker.settings.tree import Settings

log = structlog.get_logger(__name__)

NOTE_LIMIT: Final = 256
"""Contents noted in one round trip."""

MAX_WAITING: Final = 50_000
"""Contents that may wait to be noted while Redis is slow: some 20 MB. More are counted as skipped."""

THREAD_ENDS_S: Final = 1.0
"""How long the thread may go on when the worker leaves; what is not noted by then is not."""


class Noticed:
    """
    Deletions that nobody announced here, and that are to be followed all the same; any thread may call.
    """

    def __init__(self) -> None:
        self._found: list[Deletion] = []
        self._lock = threading.Lock()

    def add(self, deletions: Iterable[Deletion]) -> None:
        """
        To be followed, again where it was tried in vain.
        """
        with self._lock:
            self._found += deletions

    def take(self) -> Sequence[Deletion]:
        """
        Those that were added since the last call; the caller follows them, or adds them again.
        """
        with self._lock:
            found, self._found = self._found, []
        return list(dict.fromkeys(found))


class ContentNotes:
    """
    Writes to the index on a thread of its own, at best effort: no verdict waits for it.

    While Redis is away contents go by without a note, counted as ``error`` or ``skipped``: these can later be forgotten
    by their hashes only. A content that turns out to be gone, because its deletion overtook its upload, is told to
    ``noticed`` with the bytes that were just noted.
    """

    def __init__(
        self, index: ContentIndex, recorder: Recorder, noticed: Noticed | None = None, *, max_waiting: int = MAX_WAITING
    ) -> None:
        self._index = index
        self._recorder = recorder
        self._noticed = noticed or Noticed()
        self._waiting: Inbox[tuple[ContentName, ContentHash]] = Inbox()
        self._room = threading.Semaphore(max_waiting)

    def offer(self, content: ContentName, content_hash: ContentHash) -> None:
        """
        Have it noted that this content had these bytes; never blocks. Any thread may call.
        """
        if self._room.acquire(blocking=False):
            self._waiting.put((content, content_hash))
        else:
            self._recorder.count("content_notes_total", result="skipped")

    def work(self) -> None:
        """
        Write what is offered, until closed.
        """
        for batch in self._waiting.batches(NOTE_LIMIT):
            result = "stored"
            try:
                gone = self._index.note(batch)
                self._noticed.add(Deletion(content, (found,)) for content, found in batch if content in gone)
            except StoreUnavailable:
                result = "error"
            self._room.release(len(batch))
            count_damaged(self._index, self._recorder)
            self._recorder.count("content_notes_total", len(batch), result=result)

    def close(self) -> None:
        """
        Let what waits be written, and ``work`` return.
        """
        self._waiting.close()


@dataclass(frozen=True, slots=True)
class NotingJudge:
    """
    Implements ``worker.flow.judging.Judge``: the answers of another, and every content that it is asked about is noted.

    Here rather than where something is remembered: also what was recalled, or shared with a twin, has a name.
    """

    inner: Judge
    notes: ContentNotes

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        The inner judge's outcomes; noted before it is asked, for the embedding lies somewhere whatever it answers.
        """
        for one in known:
            passenger = one.passenger
            data = passenger.upload.data
            self.notes.offer(ContentName(data.tenant_id, data.content_id), passenger.content_hash)
        return self.inner.judge(known)

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        The inner judge's.
        """
        return self.inner.wants_shift(sightings)

    def fail(self, failed: Failed) -> Outcome:
        """
        The inner judge's; of what failed no embedding is kept.
        """
        return self.inner.fail(failed)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The inner judge's.
        """
        return self.inner.dead_letter(raw, unreadable)


@dataclass(frozen=True, slots=True)
class Noting:
    """
    How a worker notes: ``around`` puts the noting around a judge, ``check`` raises when its thread has died.

    Whoever may forget meanwhile takes what is ``noticed``.
    """

    around: Callable[[Judge], Judge]
    check: Callable[[], None]
    noticed: Noticed = field(default_factory=Noticed)


@contextmanager
def noting_contents(settings: Settings, recorder: Recorder, archive: Forgetter | None = None) -> Iterator[Noting]:
    """
    Contents are noted while inside, where there is a Redis to note them in.

    What is noticed and taken by nobody is forgotten when this is left, by which time its pipeline must have ended.
    ``archive`` is the configured one, where this process has it open.
    """
    if not settings.redis.enabled:
        yield Noting(lambda judge: judge, lambda: None)
        return
    with closing(RedisContents(settings.redis, keep_s=noted_for_s(settings))) as index:
        noticed = Noticed()
        notes = ContentNotes(index, recorder, noticed)
        crew = Crew()
        crew.start("note", notes.work)
        try:
            yield Noting(lambda judge: NotingJudge(judge, notes), crew.check, noticed)
        finally:
            notes.close()
            if crew.join(THREAD_ENDS_S):
                log.warning("contents.left_unnoted", waited_s=THREAD_ENDS_S)
            _forget_the_rest(settings, recorder, noticed.take(), archive)


def _forget_the_rest(
    settings: Settings, recorder: Recorder, left: Sequence[Deletion], archive: Forgetter | None
) -> None:
    """
    Forget these, and name those of which it failed: nobody else will try.
    """
    if not left:
        return
    with open_stores(settings, archive=archive, marks=False) as stores:
        forgotten = forget(left, stores, recorder)
    if forgotten.failed:
        log.error(
            "contents.left_unforgotten",
            failed=dict(forgotten.failed),
            sha256=sorted({content_hash for deletion in left for content_hash in deletion.hashes}),
            advice="touchstone forget --sha256 HEX, once for each, when these can be reached",
        )
