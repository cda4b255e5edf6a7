"""
Keeps decoding children: one for each thread that decodes and one spare, a new one for each that is lost or worn out.

Each child has a keeper, a thread that starts it and lives as long as it does: the kernel kills a child when the thread
that started it ends. How one child is spoken to is ``child_process.py``.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from worker.decoding.child_process import DecoderChild
from worker.errors import CannotStart, TouchstoneError, WorkerCrashed
from worker.flow.crew import Crew

log = structlog.get_logger(__name__)

MOST_FAILURES: Final = 5
"""Starts that may fail in a row, once one has succeeded; with the pauses between them some three seconds."""

FIRST_PAUSE_S: Final = 0.2
_LOOK_S: Final = 1.0
_CLOSE_S: Final = 2.0


class Nursery:
    """
    Lends children out, one to a thread at a time; ``launch`` makes one that can decode, or raises ``CannotStart``.

    Children are started when they are first wanted, all in parallel. The first that cannot be started ends it: what is
    missing then will be missing again. Later ones are tried ``MOST_FAILURES`` times, with growing pauses.
    """

    def __init__(self, launch: Callable[[], DecoderChild], *, threads: int, recycle_after: int) -> None:
        self._launch = launch
        self._most = threads + 1
        self._recycle_after = recycle_after
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._crew = Crew()
        self._keepers = 0
        self._idle: list[DecoderChild] = []
        self._lent: set[DecoderChild] = set()
        self._waiting = 0
        self._proven = False
        self._failures = 0
        self._fault: TouchstoneError | None = None

    def take(self) -> DecoderChild:
        """
        A child that is alive, as soon as there is one; ``give`` it back, or ``end`` and ``give`` it.

        Raises ``CannotStart`` where none can be started, and ``WorkerCrashed`` where none can be started any more.
        """
        with self._changed:
            self._waiting += 1
            try:
                self._have_keepers(min(self._most, len(self._lent) + self._waiting + 1))
                while True:
                    if self._fault is not None:
                        raise type(self._fault)(str(self._fault)) from self._fault
                    if self._closing.is_set():
                        raise WorkerCrashed("a picture was to be decoded after the decoder was closed")
                    while self._idle:
                        child = self._idle.pop()
                        if child.alive:
                            self._lent.add(child)
                            return child
                        log.warning("decoder.died_idle", pid=child.pid)
                        child.end()
                    self._changed.wait(_LOOK_S)
                    self._crew.check()
            finally:
                self._waiting -= 1

    def give(self, child: DecoderChild) -> bool:
        """
        Take a child back; True where it was worn out, and is replaced.
        """
        worn_out = child.alive and child.asked >= child.lifetime
        if worn_out:
            child.end()
        with self._changed:
            self._lent.discard(child)
            if self._closing.is_set():
                child.end()
            if child.alive:
                self._idle.append(child)
                self._changed.notify()
        return worn_out

    @property
    def pids(self) -> frozenset[int]:
        """
        The process ids of the children that are there.
        """
        with self._changed:
            return frozenset(child.pid for child in (*self._idle, *self._lent))

    def close(self) -> None:
        """
        End every child; whoever still waits for one is told so.
        """
        self._closing.set()
        with self._changed:
            for child in self._idle:
                child.end()
            self._idle.clear()
            for child in self._lent:
                child.kill()
            self._changed.notify_all()
        self._crew.join(_CLOSE_S)

    def _have_keepers(self, wanted: int) -> None:
        while self._keepers < wanted:
            # Each but the last lives shorter in the first round, or all would be worn out together.
            lifetime = max(1, self._recycle_after * (self._keepers + 1) // self._most)
            self._crew.start(f"decoder-{self._keepers}", partial(self._keep, lifetime))
            self._keepers += 1

    def _keep(self, lifetime: int) -> None:
        while (child := self._started()) is not None:
            child.lifetime, lifetime = lifetime, self._recycle_after
            with self._changed:
                if self._closing.is_set():
                    child.end()
                    return
                self._idle.append(child)
                self._changed.notify()
            child.gone.wait()

    def _started(self) -> DecoderChild | None:
        """
        A new child; None when there is to be none any more.
        """
        while not self._closing.is_set() and self._fault is None:
            try:
                child = self._launch()
            except CannotStart as failure:
                self._closing.wait(self._pause_after(failure))
                continue
            with self._changed:
                self._proven, self._failures = True, 0
            return child
        return None

    def _pause_after(self, failure: CannotStart) -> float:
        """
        How many seconds to wait before another start; the fault is there when there is to be none.
        """
        with self._changed:
            self._failures += 1
            log.error("decoder.start_failed", failures=self._failures, error=str(failure))
            if not self._proven:
                self._fault = failure
            elif self._failures >= MOST_FAILURES:
                self._fault = WorkerCrashed(f"{self._failures} times in a row: {failure}")
            else:
                return FIRST_PAUSE_S * 2.0 ** (self._failures - 1)
            self._changed.notify_all()
            return 0.0
