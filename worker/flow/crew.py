"""
Threads that take the process down when they die.
"""

import threading
import time
from collections.abc import Callable

import structlog

from worker.errors import TouchstoneError, WorkerCrashed

log = structlog.get_logger(__name__)


class CrewThread(threading.Thread):
    """
    A thread of some crew, and of nobody else.
    """


def crew_threads() -> frozenset[CrewThread]:
    """
    The threads of all crews of this process that have not ended.
    """
    return frozenset(thread for thread in threading.enumerate() if isinstance(thread, CrewThread))


class Crew:
    """
    The worker's threads. A thread that ends with an exception is remembered, and ``check`` raises it.

    The threads are daemons: after a crash nobody waits for one that hangs in a library.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._fault: tuple[str, BaseException] | None = None
        self._died = threading.Event()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """
        Run ``work`` in a thread of its own; returning ends the thread well, raising ends the process.
        """
        thread = CrewThread(target=self._watch, args=(name, work), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:  # noqa: BLE001 - whatever it was, it ends the process
            # Told first, or the process could be gone before; and remembered even if the log cannot be written.
            try:
                log.exception("thread.died", thread=name, error=type(fault).__name__)
            finally:
                if self._fault is None:
                    self._fault = (name, fault)
                self._died.set()

    def check(self) -> None:
        """
        Raise ``WorkerCrashed`` if a thread has died.
        """
        if self._died.is_set() and self._fault is not None:
            name, fault = self._fault
            if isinstance(fault, TouchstoneError):
                raise fault
            raise WorkerCrashed(f"thread {name} died: {type(fault).__name__}: {fault}") from fault

    def join(self, timeout_s: float) -> list[str]:
        """
        Wait for all threads to end; the names of those that did not within ``timeout_s`` altogether.
        """
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]
