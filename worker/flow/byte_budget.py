"""
How many image bytes may be held at once.
"""

import threading


class ByteBudget:
    """
    A count of bytes held, with a door that is shut while the count is at its limit.

    Passing the door reserves nothing, since a size is known only after the fetch: the count may overshoot by what the
    fetch threads hold in hand, which is at most threads x ``fetch.max_image_bytes``.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._open = True
        self._changed = threading.Condition()

    @property
    def full(self) -> bool:
        """
        True while the door is shut.
        """
        with self._changed:
            return self._held >= self._limit

    @property
    def held(self) -> int:
        """
        Bytes counted in and not out.
        """
        return self._held

    def pass_door(self) -> None:
        """
        Block until fewer bytes than the limit are held, or the budget is closed.
        """
        if self._held < self._limit:  # as good as under the lock: passing reserves nothing
            return
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._limit or not self._open)

    def hold(self, size_bytes: int) -> None:
        """
        Count bytes in.
        """
        with self._changed:
            self._held += size_bytes

    def free(self, size_bytes: int) -> None:
        """
        Count bytes out.
        """
        with self._changed:
            was_full = self._held >= self._limit
            self._held -= size_bytes
            if was_full:
                self._changed.notify_all()

    def close(self) -> None:
        """
        Open the door for good, so that nobody waits at it while the worker stops.
        """
        with self._changed:
            self._open = False
            self._changed.notify_all()
