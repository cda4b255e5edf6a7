"""
What one fetch may take: seconds in all, a pace below which nobody is waited for, and bytes on the wire.

The sockets of ``guarded_dial.py`` keep to it on every read, so that a peer which drips its headers or its body, or
which never stops, gains nothing. No socket and no HTTP lives here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import Final

from worker.settings.images import FetchSettings

_FRAMING_BYTES: Final = 1024 * 1024
"""Room for headers; chunked bodies may besides be framed in as many bytes as they have."""


class TooSlow(Exception):
    """
    A peer sends fewer bytes than it must. No ``OSError``: HTTP libraries must not take it for one of theirs.
    """


class TooMuch(Exception):
    """
    A peer sends far more bytes than an image may have, without an answer coming to its end.
    """


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """
    The limits of one fetch. ``wire_bytes`` is for one answer, headers and framing included.
    """

    total_s: float
    min_bytes_per_s: float = 0.0
    slow_after_s: float = inf
    wire_bytes: float = inf

    @classmethod
    def of(cls, settings: FetchSettings) -> "FetchLimits":
        """
        The limits that the settings say.
        """
        return cls(
            total_s=settings.total_timeout_s,
            min_bytes_per_s=settings.min_bytes_per_s,
            slow_after_s=settings.slow_after_s,
            wire_bytes=2 * settings.max_image_bytes + _FRAMING_BYTES,
        )


@dataclass(slots=True)
class Spending:
    """
    What a fetch has used of its limits; of one thread. ``connected`` are the addresses that it has connected to.
    """

    limits: FetchLimits
    deadline_s: float
    connected: list[str] = field(default_factory=list)
    _begun: bool = False
    _wire_bytes: int = 0
    _window_bytes: int = 0
    _window_s: float = 0.0

    @property
    def left_s(self) -> float:
        """
        Seconds until the time limit; below 0 once it is over.
        """
        return self.deadline_s - time.monotonic()

    def next_answer(self) -> None:
        """
        Pace and bytes are counted anew: another request goes out.
        """
        self._begun, self._wire_bytes, self._window_bytes, self._window_s = False, 0, 0, 0.0

    def received(self, count: int, waited_s: float) -> None:
        """
        So many bytes came, after so many seconds in which this thread did nothing but wait for them.

        How long the first byte takes is the read time-out's business. Raises ``TooSlow`` and ``TooMuch``.
        """
        self._wire_bytes += count
        if self._wire_bytes > self.limits.wire_bytes:
            raise TooMuch(f"more than {self.limits.wire_bytes} bytes")
        self._window_bytes += count
        if self._begun:
            self._window_s += waited_s
        self._begun = True
        if self._window_s >= self.limits.slow_after_s:
            if self._window_bytes < self.limits.min_bytes_per_s * self._window_s:
                raise TooSlow(f"{self._window_bytes} bytes in {self._window_s:.1f} s")
            self._window_bytes, self._window_s = 0, 0.0


_spending: ContextVar[Spending | None] = ContextVar("spending", default=None)


@contextmanager
def fetch_limits(limits: FetchLimits) -> Iterator[Spending]:
    """
    Within it, this thread's reads through the sockets of ``guarded_dial.py`` stand under these limits.
    """
    spending = Spending(limits, time.monotonic() + limits.total_s)
    token = _spending.set(spending)
    try:
        yield spending
    finally:
        _spending.reset(token)


def current() -> Spending | None:
    """
    What stands for this thread now; None outside ``fetch_limits``.
    """
    return _spending.get()


def within_limit(timeout_s: float | None) -> float | None:
    """
    The time-out, cut to what is left of the time limit. Raises ``TimeoutError`` when nothing is left.
    """
    spending = _spending.get()
    if spending is None:
        return timeout_s
    left_s = spending.left_s
    if left_s <= 0:
        raise TimeoutError("the time limit of the fetch is over")
    return left_s if timeout_s is None else min(timeout_s, left_s)
