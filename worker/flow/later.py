"""
Uploads that wait a moment before they are fetched again, without holding a thread while they wait.

How long they wait is decided in ``retrying.py``.
"""

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from worker.flow.travellers import Unfetched
from worker.ports import Clock

LOOK_S: Final = 0.5
"""How often it is looked for slots that were forgotten, while anything waits."""


class Later:
    """
    Gives each upload on when its time has come, from one thread; any thread may ``put``.

    Bounded where slots are given out. A slot that is forgotten meanwhile is let go within ``LOOK_S``, and nobody waits
    for what is left when it is closed: it was not committed, and is read again.
    """

    def __init__(self, give: Callable[[Unfetched], None], clock: Clock) -> None:
        self._give = give
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Unfetched]] = []
        self._order = count()
        self._closed = False

    def __len__(self) -> int:
        """
        How many wait.
        """
        with self._changed:
            return len(self._waiting)

    def put(self, unfetched: Unfetched, wait_s: float) -> None:
        """
        Have it given on in so many seconds; never blocks. Once closed, it is let go.
        """
        due_s = self._clock.monotonic_s() + wait_s
        with self._changed:
            if not self._closed:
                heapq.heappush(self._waiting, (due_s, next(self._order), unfetched))
                self._changed.notify_all()

    def work(self) -> None:
        """
        Give on what is due, until it is closed.
        """
        while (due := self._next()) is not None:
            self._give(due)

    def close(self) -> None:
        """
        End the thread at once, and let go what waits.
        """
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _next(self) -> Unfetched | None:
        with self._changed:
            while not self._closed:
                self._let_go()
                left_s = self._waiting[0][0] - self._clock.monotonic_s() if self._waiting else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(None if left_s is None else min(left_s, LOOK_S))
        return None

    def _let_go(self) -> None:
        if any(unfetched.slot.forgotten for _, _, unfetched in self._waiting):
            self._waiting = [one for one in self._waiting if not one[2].slot.forgotten]
            heapq.heapify(self._waiting)
