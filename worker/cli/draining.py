"""
How a command that runs the loop is stopped by signals: the first drains it, a second one ends the process at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

import structlog

from worker.errors import EXIT_CRASHED

if TYPE_CHECKING:
    from worker.flow.loop import Loop

LAST_GRACE_S: Final = 2.0
"""What a drain may last beyond its time: clients that are closed while their broker hangs wait a little."""

log = structlog.get_logger(__name__)


@contextmanager
def drained_by_signals(drain_timeout_s: float) -> Iterator[Callable[["Loop"], None]]:
    """
    SIGTERM and SIGINT drain the loop that is handed to the function given; one that came before drains it at once.

    A drain that is not over in time, because a broker hangs, ends the process: nothing unfinished was committed.
    """
    loops: list[Loop] = []
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            os._exit(128 + number)
        for loop in loops:
            loop.drain()
        _leave_in_time(drain_timeout_s)

    def on_loop(loop: "Loop") -> None:
        loops.append(loop)
        if signals:
            loop.drain()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield on_loop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_in_time(drain_timeout_s: float) -> None:
    def leave() -> None:
        log.error("worker.drain_timed_out", timeout_s=drain_timeout_s)
        os._exit(EXIT_CRASHED)

    watch = threading.Timer(drain_timeout_s + LAST_GRACE_S, leave)
    watch.daemon = True
    watch.start()
