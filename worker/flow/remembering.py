"""
What was found of bytes, on its way into the shared cache: a queue, and a thread that lets go what was forgotten.

What lies in the cache is behind ``worker.ports.EmbeddingCache``; the archive has a queue of its own in ``keeping.py``.
"""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Final, NamedTuple

from schemas.errors import ErrorCode
from worker.domain import ContentHash, Sighting
from worker.errors import StoreUnavailable
from worker.flow.containment import remembered
from worker.flow.forgotten import WRITE_ENDS_S, ForgottenLately
from worker.flow.inbox import Inbox, drained
from worker.ports import EmbeddingCache, Remembered

REMEMBER_LIMIT: Final = 128
"""Bytes of which something is written in one round trip."""


class Measured(NamedTuple):
    """
    A sighting that may be kept, and the turn in which its bytes were asked for.
    """

    content_hash: ContentHash
    sighting: Sighting
    turn: int

    @property
    def found(self) -> Remembered:
        """
        What the cache keeps of them.
        """
        return self.sighting


class Unreadable(NamedTuple):
    """
    Bytes that are no readable image, with the code that they failed with; the turn as above.
    """

    content_hash: ContentHash
    code: ErrorCode
    turn: int

    @property
    def found(self) -> Remembered:
        """
        What the cache keeps of them.
        """
        return self.code


class Rememberer:
    """
    Tells the cache what it is offered, unless it was forgotten meanwhile. Without a cache it does nothing.
    """

    def __init__(
        self, cache: EmbeddingCache | None, waiting: Inbox[Measured | Unreadable], forgotten: ForgottenLately
    ) -> None:
        self._cache = cache
        self._waiting = waiting
        self._forgotten = forgotten
        self._writing = threading.Lock()
        self._elsewhere: SimpleQueue[ContentHash] = SimpleQueue()

    def offer(self, one: Measured | Unreadable) -> None:
        """
        Have it remembered later; never blocks. Any thread may call.
        """
        if self._cache is not None:
            self._waiting.put(one)

    def work(self) -> None:
        """
        Write what is offered, until its queue is closed.
        """
        for batch in self._waiting.batches(REMEMBER_LIMIT):
            if self._cache is not None:
                self._write(self._cache, batch)

    def settle(self) -> None:
        """
        Return when no write is under way that began before the call.

        What was told to ``ForgottenLately`` before is then written by nobody here, and can be removed. Raises
        ``StoreUnavailable`` when a write does not end.
        """
        if not self._writing.acquire(timeout=WRITE_ENDS_S):
            raise StoreUnavailable(
                f"a write to the cache that began earlier has not ended within {WRITE_ENDS_S:g} s, and may still arrive"
            )
        self._writing.release()

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        Bytes of which the cache said that they were forgotten by others, since the last call; never blocks.
        """
        return list(dict.fromkeys(drained(self._elsewhere)))

    def _write(self, cache: EmbeddingCache, batch: Sequence[Measured | Unreadable]) -> None:
        with self._writing:
            # Asked inside: whoever forgets tells first, and waits for this lock then.
            left = {
                one.content_hash: one.found for one in batch if not self._forgotten.since(one.content_hash, one.turn)
            }
            for content_hash in remembered(cache, left) if left else ():
                self._elsewhere.put(content_hash)
