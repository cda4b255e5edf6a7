"""
How many fetches one host may hold at a time, and when a host that does not answer is left alone.

No stranger's host holds all fetch threads: not with slow answers, for some threads are always left to others; not with
waiting fetches, for these give up soon; and not with time-outs, for these open its circuit breaker. At the platform's
own places a fetch waits for its turn as long as it may take: that the store halts for a moment is no reason to put off
all its uploads at once. So a slow store of one's own can hold all threads for as long as a fetch may take. What a host
is, and what counts as its failure, is for the caller to say.

Known hole: hosts are told apart by name, so whoever owns a domain has as many hosts as it has names below it.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import ErrorCode
from worker.adapters.circuit_breaker import CircuitBreaker
from worker.adapters.fetch_limits import within_limit
from worker.errors import UploadFailed
from worker.ports import Clock, Recorder
from worker.settings.images import FetchSettings

HOSTS_REMEMBERED: Final = 1024
"""Beyond it, the host that was asked longest ago is forgotten, its breaker with it."""

_HOST_AT_FAULT: Final = frozenset({ErrorCode.FETCH_TIMEOUT, ErrorCode.FETCH_TOO_SLOW, ErrorCode.FETCH_UPSTREAM})
_HOST_IS_DOWN: Final = frozenset({502, 503, 504})
"""What is answered in the place of a host that does not. Any other status comes from one that lives."""

_LATER: Final = 429
_OWN_FAULT: Final = 500
_NEARLY: Final = 0.9
"""Of a time-out: clocks and sockets do not agree to the millisecond."""


@dataclass(slots=True)
class _Host:
    breaker: CircuitBreaker
    under_way: int = 0
    users: int = 0
    """Fetches before the gate or inside; until they are gone nobody may forget it."""
    stuck: bool = False
    """Somebody waited in vain, and none of the fetches under way has ended since."""
    turn: threading.Condition = field(default_factory=threading.Condition)


class HostGates:
    """
    The gates of all hosts. Called by many threads at once.
    """

    def __init__(self, settings: FetchSettings, *, clock: Clock, recorder: Recorder) -> None:
        self._settings = settings
        self._connections = max(min(settings.per_host_connections, settings.threads - 1), 1)
        self._shortest_s = min(settings.connect_timeout_s, settings.read_timeout_s)
        self._clock = clock
        self._recorder = recorder
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._finding = threading.Lock()

    def __len__(self) -> int:
        """
        How many hosts are remembered.
        """
        return len(self._hosts)

    @contextmanager
    def through(self, name: str, *, own: bool = False) -> Iterator[None]:
        """
        One fetch from a host, inside; the ``UploadFailed`` that leaves it says whether the host failed.

        ``own`` says that it is a place of the platform's own, whose turns are worth waiting for.

        Raises ``UploadFailed`` (FETCH_HOST_DOWN) while the host is left alone or holds all the connections that it may,
        and ``TimeoutError`` when the time limit ends while waiting for one.
        """
        host = self._found(name)
        try:
            if host.breaker.probe_in_s() > 0:
                raise self._left_alone(host, name)
            with self._turn(host, name, patient=own):
                if not host.breaker.allows():
                    raise self._left_alone(host, name)
                started_s = self._clock.monotonic_s()
                try:
                    yield
                except UploadFailed as failed:
                    self._judge(host, failed, took_s=self._clock.monotonic_s() - started_s)
                    raise
                self._answered(host)
        finally:
            with self._finding:
                host.users -= 1

    def _found(self, name: str) -> _Host:
        with self._finding:
            host = self._hosts.get(name)
            if host is None:
                host = self._hosts[name] = _Host(
                    CircuitBreaker(
                        self._clock, failures=self._settings.breaker_failures, open_s=self._settings.breaker_open_s
                    )
                )
            host.users += 1
            self._hosts.move_to_end(name)
            while len(self._hosts) > HOSTS_REMEMBERED:
                idle = next((key for key, one in self._hosts.items() if not one.users), None)
                if idle is None:
                    break
                del self._hosts[idle]
            return host

    @contextmanager
    def _turn(self, host: _Host, name: str, *, patient: bool) -> Iterator[None]:
        with host.turn:
            if patient:
                wait_s = within_limit(self._settings.total_timeout_s)
            else:
                wait_s = 0.0 if host.stuck else within_limit(self._settings.host_wait_s)
            if not host.turn.wait_for(lambda: host.under_way < self._connections, timeout=wait_s):
                # Nobody waits behind it until one of those under way ends: the others' uploads need the threads.
                host.stuck = host.stuck or wait_s == self._settings.host_wait_s
                raise self._refused(f"{name} holds all of its {self._connections} connections and none ends", None)
            host.under_way += 1
        try:
            yield
        finally:
            with host.turn:
                host.under_way -= 1
                host.stuck = False
                host.turn.notify()

    def _left_alone(self, host: _Host, name: str) -> UploadFailed:
        why = f"{name} failed {self._settings.breaker_failures} times in a row or more and is left alone for now"
        return self._refused(why, host.breaker.probe_in_s())

    def _refused(self, why: str, retry_after_s: float | None) -> UploadFailed:
        self._recorder.count("fetch_breaker_total", result="refused")
        return UploadFailed(ErrorCode.FETCH_HOST_DOWN, why, retry_after_s=retry_after_s)

    def _judge(self, host: _Host, failed: UploadFailed, *, took_s: float) -> None:
        status = failed.http_status
        if status is not None and status not in _HOST_IS_DOWN:
            # One path that fails must not shut a host that others share; nor does it show that the host is well.
            if status < _OWN_FAULT and status != _LATER:
                self._answered(host)
            return
        if failed.code is ErrorCode.FETCH_TOO_LARGE:
            self._answered(host)
            return
        if failed.code not in _HOST_AT_FAULT:
            return  # what was refused on our side says nothing of the host
        if failed.code is ErrorCode.FETCH_TIMEOUT and took_s < _NEARLY * self._shortest_s:
            # Others used up the time: a slow host that redirects here must not make this one look dead.
            return
        if host.breaker.failed():
            self._recorder.count("fetch_breaker_total", result="opened")

    def _answered(self, host: _Host) -> None:
        if host.breaker.succeeded():
            self._recorder.count("fetch_breaker_total", result="closed")
