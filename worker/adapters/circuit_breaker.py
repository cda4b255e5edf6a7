"""
When to stop asking somebody who does not answer, and when to try again.
"""

import threading

from worker.ports import Clock


class CircuitBreaker:
    """
    Open after ``failures`` failures in a row; from then on one probe is let through every ``open_s`` seconds.

    May be used by several threads. Who was let through says ``succeeded`` or ``failed``; a probe that never does only
    costs the time until the next.
    """

    def __init__(self, clock: Clock, *, failures: int, open_s: float) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._in_a_row = 0
        self._probe_at_s: float | None = None
        self._changing = threading.Lock()

    def allows(self) -> bool:
        """
        Whether to ask now. While open, True makes the caller the probe.
        """
        with self._changing:
            if self._probe_at_s is None:
                return True
            now_s = self._clock.monotonic_s()
            if now_s < self._probe_at_s:
                return False
            self._probe_at_s = now_s + self._open_s
            return True

    def probe_in_s(self) -> float:
        """
        Seconds until the next probe may go; 0 while closed.
        """
        with self._changing:
            return 0.0 if self._probe_at_s is None else max(self._probe_at_s - self._clock.monotonic_s(), 0.0)

    def succeeded(self) -> bool:
        """
        An answer came: closed, whatever was before. True if it was open.
        """
        with self._changing:
            was_open = self._probe_at_s is not None
            self._in_a_row = 0
            self._probe_at_s = None
            return was_open

    def failed(self) -> bool:
        """
        No answer came, or none that makes sense. True if this is what opened it.
        """
        with self._changing:
            was_open = self._probe_at_s is not None
            self._in_a_row += 1
            if self._in_a_row >= self._limit:
                self._probe_at_s = self._clock.monotonic_s() + self._open_s
            return self._probe_at_s is not None and not was_open
