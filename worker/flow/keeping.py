"""
Sightings on their way into an archive: a short queue and a thread of its own, so that nothing else ever waits for it.

Where they are kept is behind ``worker.ports.SightingArchive``.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import structlog

from worker.domain import ContentHash, Sighting
from worker.errors import ArchiveUnavailable
from worker.flow.crew import Crew
from worker.flow.forgotten import WRITE_ENDS_S, ForgottenLately
from worker.flow.remembering import Measured
from worker.ports import Recorder, SightingArchive

log = structlog.get_logger(__name__)

KEEP_WAITING = 1024
"""Sightings that may wait; of 1024 dimensions and five views each they hold 20 MB. More are skipped."""

KEEP_LIMIT = 128
"""Sightings written together."""


class Keeper:
    """
    Keeps what it is offered, at best effort: what does not fit, or cannot be written, is counted and let go.

    Of the same bytes waiting twice the latest offer is written, of what was forgotten meanwhile none. Without an
    archive it does nothing.
    """

    def __init__(
        self,
        archive: SightingArchive | None,
        recorder: Recorder,
        forgotten: ForgottenLately | None = None,
        *,
        waiting: int = KEEP_WAITING,
    ) -> None:
        self._archive = archive
        self._recorder = recorder
        self._limit = waiting
        self._forgotten = forgotten or ForgottenLately()
        self._waiting: deque[Measured] = deque()
        self._writing: AbstractSet[ContentHash] = frozenset()
        self._closing = False
        self._failing = False
        self._changed = threading.Condition()
        self._crew = Crew()

    def start(self) -> None:
        """
        Start the thread.
        """
        if self._archive is not None:
            self._crew.start("keep", self._keep_all)

    def offer(self, measured: Measured) -> None:
        """
        Add one to what is kept later; never blocks. Any thread may call.
        """
        if self._archive is None:
            return
        with self._changed:
            fits = len(self._waiting) < self._limit and not self._closing
            if fits:
                self._waiting.append(measured)
                self._changed.notify_all()
        if not fits:
            self._recorder.count("archive_writes_total", result="skipped")

    def check(self) -> None:
        """
        Raise if the thread has died.
        """
        self._crew.check()

    def close(self, timeout_s: float) -> None:
        """
        Write what is waiting and end the thread, within ``timeout_s``; what is left then is counted as skipped.

        Only the first call does anything.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        if not self._crew.join(timeout_s):
            return
        with self._changed:
            # What is being written now may arrive all the same; it is not relied on.
            left = len(self._waiting) + len(self._writing)
            self._waiting.clear()
        self._recorder.count("archive_writes_total", left, result="skipped")
        log.warning("archive.left_unwritten", sightings=left, waited_s=timeout_s)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Let go of these bytes where they wait; how many did. What is being written now is waited for.

        The archive can then remove it. Raises ``ArchiveUnavailable`` when that write does not end.
        """
        gone = set(hashes)
        with self._changed:
            before = len(self._waiting)
            self._waiting = deque(one for one in self._waiting if one.content_hash not in gone)
            dropped = before - len(self._waiting)
            if not self._changed.wait_for(lambda: self._writing.isdisjoint(gone), WRITE_ENDS_S):
                raise ArchiveUnavailable(
                    f"a write to the archive that began earlier has not ended within {WRITE_ENDS_S:g} s, and may still "
                    "arrive"
                )
            return dropped

    def _keep_all(self) -> None:
        while batch := self._next():
            self._keep(batch)

    def _next(self) -> Mapping[ContentHash, Sighting]:
        """
        What is waiting, at most ``KEEP_LIMIT``; nothing when all is written and the keeper is closing.
        """
        with self._changed:
            self._writing = frozenset()
            self._changed.notify_all()
            batch: dict[ContentHash, Sighting] = {}
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    break
                taken = [self._waiting.popleft() for _ in range(min(KEEP_LIMIT, len(self._waiting)))]
                # Asked under the lock for which whoever forgets waits after telling.
                batch = {
                    one.content_hash: one.sighting
                    for one in taken
                    if not self._forgotten.since(one.content_hash, one.turn)
                }
            self._writing = batch.keys()
            return batch

    def _keep(self, batch: Mapping[ContentHash, Sighting]) -> None:
        assert self._archive is not None  # noqa: S101 - there is no thread without one
        try:
            self._archive.keep(batch)
        except Exception as fault:
            # A replay will have to fetch these; no verdict depends on it.
            self._recorder.count("archive_writes_total", len(batch), result="error")
            # Once for each outage: a disk that is full would fill the log as well.
            if not self._failing:
                trace = None if isinstance(fault, ArchiveUnavailable) else fault
                log.warning("archive.unavailable", error=f"{type(fault).__name__}: {fault}", exc_info=trace)
            self._failing = True
            return
        self._recorder.count("archive_writes_total", len(batch), result="stored")
        if self._failing:
            log.info("archive.available_again")
        self._failing = False
