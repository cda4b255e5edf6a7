"""
Micro-batches: closed when full, when nobody else is coming, or on their deadline, whichever is first.

Who is coming is counted in ``coming.py``.
"""

import threading
from collections import deque
from typing import Final, Generic, Literal, TypeVar

from worker.flow.coming import Coming
from worker.flow.inbox import WaitWatch
from worker.ports import Clock

T = TypeVar("T")

CloseReason = Literal["size", "arrived", "deadline", "drain"]

LEAST_SHARE: Final = 4
"""Items in a share of what is left: each micro-batch also costs something by itself."""


class MicroBatcher(Generic[T]):
    """
    Collects items from many threads and hands them to one or more, a micro-batch at a time, in the order of arrival.

    While the takers are busy the next batch goes on filling, up to ``size``: it is always ready when one comes back,
    and a deadline that passed meanwhile costs nobody anything. While one is idle, a batch waits for others no longer
    than that brings anything: with ``coming`` it closes as soon as nobody is on the way, and in any case when its
    oldest item has waited for ``deadline_s``. So an item waits at low load for nothing, and at high load for the
    takers only.

    Where nobody else comes and less is left than one batch for each of ``takers``, they share it, so that they are done
    at about the same time: else one would encode the last full batch while the others' cores have nothing to do.
    Threads that take turns on one device, a GPU, are one taker in this: small batches bring them nothing.
    """

    def __init__(
        self,
        *,
        size: int,
        deadline_s: float,
        clock: Clock,
        watch: WaitWatch | None = None,
        coming: Coming | None = None,
        takers: int = 1,
    ) -> None:
        self._size = size
        self._takers = takers
        self._deadline_s = deadline_s
        self._clock = clock
        self._watch = watch
        self._coming = coming
        self._changed = threading.Condition()
        self._items: deque[tuple[float, T]] = deque()
        self._closed = False
        if coming is not None:
            coming.when_nobody(self._nobody_comes)

    def __len__(self) -> int:
        """
        How many wait.
        """
        return len(self._items)

    def put(self, item: T) -> None:
        """
        Add an item; never blocks, because the slots bound how many there can be.

        Whoever puts it counts it as coming until it is put: a batch that may close without others is not missed then.
        """
        with self._changed:
            self._items.append((self._clock.monotonic_s(), item))
            if len(self._items) == 1 or len(self._items) >= self._size:
                self._changed.notify()

    def close(self) -> None:
        """
        Let the takers have what is left, at once, and then None.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def due(self, now_s: float) -> CloseReason | None:
        """
        Why the batch that is filling closes now, or None while it stays open.
        """
        if len(self._items) >= self._size:
            return "size"
        if self._items and self._closed:
            return "drain"
        if self._items and now_s - self._items[0][0] >= self._deadline_s:
            return "deadline"
        if self._items and self._coming is not None and self._coming.nobody:
            return "arrived"
        return None

    def take(self) -> tuple[list[T], CloseReason] | None:
        """
        The next micro-batch, of 1 to ``size`` items, and why it closed; blocks. None when all is taken and closed.
        """
        with self._changed:
            while True:
                now_s = self._clock.monotonic_s()
                reason = self.due(now_s)
                if reason is not None:
                    taken = [self._items.popleft() for _ in range(self._share())]
                    if self._items:
                        # What is left may be due as well, or has a deadline that another taker must wait for.
                        self._changed.notify()
                    break
                if self._closed:
                    return None
                # Written as in ``due``, so that both round alike: above 0 exactly while the batch stays open.
                wait_s = self._deadline_s - (now_s - self._items[0][0]) if self._items else None
                self._changed.wait(wait_s)
        if self._watch is not None:
            for put_s, _ in taken:
                self._watch.took(put_s)
        return [item for _, item in taken], reason

    def _share(self) -> int:
        """
        How many items one taker takes of those that wait.
        """
        waiting = len(self._items)
        if self._closed or (self._coming is not None and self._coming.nobody):
            return min(self._size, waiting, max(LEAST_SHARE, -(-waiting // self._takers)))
        return min(self._size, waiting)

    def _nobody_comes(self) -> None:
        with self._changed:
            if self._items:
                self._changed.notify()
