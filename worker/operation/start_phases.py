"""
What a start spends its time on, told in the log at level debug; ``touchstone bench startup`` reads it there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Phase(Generic[T_co]):
    """
    What a part of a start made, and how long that took: by the clock, and in CPU time of its thread.
    """

    made: T_co
    wall_s: float
    cpu_s: float


def timed(make: Callable[[], T_co]) -> Phase[T_co]:
    """
    Make it and say how long it took; nothing is told yet, so that a thread may go on when nobody waits for it any more.
    """
    began_s, used_s = time.monotonic(), time.thread_time()
    made = make()
    return Phase(made, time.monotonic() - began_s, time.thread_time() - used_s)


def told(name: str, phase: Phase[T_co]) -> T_co:
    """
    Tell how long this phase took; returns what it made. Phases may overlap: they run in several threads.
    """
    log.debug("start.phase", phase=name, wall_s=round(phase.wall_s, 3), cpu_s=round(phase.cpu_s, 3))
    return phase.made


@contextmanager
def start_phase(name: str) -> Iterator[None]:
    """
    The part inside as a phase of the start, told when it is over; one that fails is not told.
    """
    began_s, used_s = time.monotonic(), time.thread_time()
    yield
    told(name, Phase(None, time.monotonic() - began_s, time.thread_time() - used_s))
