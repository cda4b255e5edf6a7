"""
Connections that nobody uses now, kept for the next request: so many over all hosts, and none for long.

How connections are made, and what is asked over them, is in ``https_pool.py``.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

IDLE_S: Final = 30.0
"""Most servers close what is idle for longer anyhow."""


class Closable(Protocol):
    """
    A connection, as far as it matters here.
    """

    @property
    def is_connected(self) -> bool:
        """
        Whether it is open and nothing came that nobody asked for.
        """

    def close(self) -> None:
        """
        Give its descriptor back.
        """


Kept = TypeVar("Kept", bound=Closable)
Origin = tuple[str, str, int]
"""Scheme, host and port that a connection was made, and its certificate verified, for."""


@dataclass(frozen=True, slots=True)
class _Idle(Generic[Kept]):
    origin: Origin
    connection: Kept
    since_s: float


class IdleConnections(Generic[Kept]):
    """
    At most ``most`` connections; the one that lay longest goes first. Called by many threads at once.

    Known hole: what lies too long is closed when the next one is taken or kept, not by a thread of its own; while
    nothing is fetched at all, up to ``most`` stay open until their servers close them.
    """

    def __init__(self, most: int, longest_s: float = IDLE_S, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._longest_s = longest_s
        self._now_s = now_s
        self._idle: deque[_Idle[Kept]] = deque()
        self._open = True
        self._changing = threading.Lock()

    def __len__(self) -> int:
        """
        How many are kept now.
        """
        return len(self._idle)

    def taken(self, origin: Origin) -> Kept | None:
        """
        The one of this origin that was used last and is still connected; None where there is none.
        """
        while True:
            with self._changing:
                gone = self._outlived()
                found = next((one for one in reversed(self._idle) if one.origin == origin), None)
                if found is not None:
                    self._idle.remove(found)
            _close(gone)
            if found is None or found.connection.is_connected:
                return None if found is None else found.connection
            found.connection.close()

    def keep(self, origin: Origin, connection: Kept) -> None:
        """
        For the next request; closed at once when its peer has closed it, or nothing is kept any more.
        """
        connected = connection.is_connected
        with self._changing:
            gone = self._outlived()
            self._idle.append(_Idle(origin, connection, self._now_s()))
            if not connected or not self._open:
                gone.append(self._idle.pop())
            while len(self._idle) > self._most:
                gone.append(self._idle.popleft())
        _close(gone)

    def close(self) -> None:
        """
        All are closed, and so is whatever comes later.
        """
        with self._changing:
            self._open = False
            gone = list(self._idle)
            self._idle.clear()
        _close(gone)

    def _outlived(self) -> list[_Idle[Kept]]:
        gone = []
        while self._idle and self._idle[0].since_s <= self._now_s() - self._longest_s:
            gone.append(self._idle.popleft())
        return gone


def _close(idle: Iterable[_Idle[Kept]]) -> None:
    for one in idle:
        one.connection.close()
