"""
How busy something is that does one thing at a time.
"""

import threading
from collections import deque
from typing import Final

from worker.ports import Clock

WINDOW_S: Final = 15.0
"""Over how many seconds a share is taken: as long as between two scrapes."""


class BusyMeter:
    """
    Seconds spent inside it; entered by one thread at a time, read by any.
    """

    def __init__(self, clock: Clock, *, window_s: float = WINDOW_S) -> None:
        self._clock = clock
        self._window_s = window_s
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._spent: deque[tuple[float, float]] = deque()

    def __enter__(self) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._began_s = now_s

    def __exit__(self, *_: object) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            if self._began_s is not None:
                self._spent.append((self._began_s, now_s))
            self._began_s = None
            while self._spent and self._spent[0][1] <= now_s - self._window_s:
                self._spent.popleft()

    def share(self) -> float:
        """
        The share of the last ``window_s`` spent inside, 0 to 1; what is under way counts up to now.
        """
        now_s = self._clock.monotonic_s()
        from_s = now_s - self._window_s
        with self._lock:
            spent = [*self._spent, *([] if self._began_s is None else [(self._began_s, now_s)])]
        busy_s = sum(max(0.0, min(end_s, now_s) - max(began_s, from_s)) for began_s, end_s in spent)
        return min(1.0, busy_s / self._window_s)
