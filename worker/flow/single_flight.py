"""
The same bytes twice in flight are embedded once.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

from schemas.errors import ErrorCode
from worker.domain import ContentHash
from worker.flow.forgotten import ForgottenLately
from worker.ports import Clock, Remembered

P = TypeVar("P")

FAILURE_KNOWN_S: Final = 3600.0
"""How long it is known of bytes that they are no readable image, where nobody says otherwise: as in the cache."""


class Boarding(Enum):
    """
    What a passenger has to do: compute the embedding for all, or wait for it.
    """

    LEADER = "leader"
    FOLLOWER = "follower"


class _Landed(NamedTuple):
    found: Remembered
    at_s: float


class SingleFlight(Generic[P]):
    """
    One flight per content hash, from its first passenger to its landing; any thread may call.

    Landed sightings stay known for the next ``recent`` hashes, so that a twin which boards in the moment between
    landing and the cache's write is not embedded again, with or without a cache. So do the codes of bytes that are no
    readable image, but for no longer than ``failure_known_s`` seconds after they landed, however often they are asked
    for: whatever made them so is then looked at again.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        recent: int,
        failure_known_s: float = FAILURE_KNOWN_S,
        forgotten: ForgottenLately | None = None,
    ) -> None:
        self._clock = clock
        self._recent = recent
        self._failure_known_s = failure_known_s
        self._forgotten = forgotten or ForgottenLately()
        self._landed: OrderedDict[ContentHash, _Landed] = OrderedDict()
        self._flights: dict[ContentHash, list[P]] = {}
        self._lock = threading.Lock()

    def board(self, content_hash: ContentHash, passenger: P) -> Boarding | Remembered:
        """
        Join the flight of these bytes, or get what landed of them lately at once.
        """
        with self._lock:
            landed = self._known(content_hash)
            if landed is not None:
                self._landed.move_to_end(content_hash)
                return landed
            followers = self._flights.get(content_hash)
            if followers is not None:
                followers.append(passenger)
                return Boarding.FOLLOWER
            self._flights[content_hash] = []
            return Boarding.LEADER

    def landed(self, content_hash: ContentHash) -> Remembered | None:
        """
        What landed of these bytes lately; nobody boards.
        """
        with self._lock:
            return self._known(content_hash)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Drop what landed of these bytes; how many were there.

        A flight under way serves its passengers, and is not known to twins after that where ``ForgottenLately`` was
        told before this.
        """
        with self._lock:
            return sum(self._landed.pop(content_hash, None) is not None for content_hash in set(hashes))

    def land(self, content_hash: ContentHash, found: Remembered | None, *, turn: int = 0) -> list[P]:
        """
        End the flight; the followers, in the order in which they boarded, are now the caller's to serve.

        What was found is kept for twins to come, unless it was forgotten after ``turn``; None means that the leader
        failed for a reason that may not hold for them.
        """
        with self._lock:
            if found is not None and not self._forgotten.since(content_hash, turn):
                self._landed[content_hash] = _Landed(found, self._clock.monotonic_s())
                if len(self._landed) > self._recent:
                    self._landed.popitem(last=False)
            return self._flights.pop(content_hash)

    def _known(self, content_hash: ContentHash) -> Remembered | None:
        landed = self._landed.get(content_hash)
        if landed is None:
            return None
        if isinstance(landed.found, ErrorCode) and self._clock.monotonic_s() - landed.at_s >= self._failure_known_s:
            del self._landed[content_hash]
            return None
        return landed.found
