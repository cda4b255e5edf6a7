"""
How a waiting thread hears of what others have for it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from worker.flow.bell import Bell

PATIENCE_S = 60.0


@pytest.fixture
def on_signal() -> Iterator[Bell]:
    """
    A bell that SIGUSR1 rings.
    """
    bell = Bell()
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.ring())
    yield bell
    signal.signal(signal.SIGUSR1, before)


def test_a_wait_ends_when_it_rings_or_in_time() -> None:
    """
    A ring from before the wait counts, however often it was; without one the wait ends in its own time.
    """
    bell = Bell()
    bell.ring()
    bell.ring()

    assert bell.wait(PATIENCE_S)
    assert not bell.wait(0.001)
    assert not bell.wait(-1.0)


def test_it_rings_again_after_it_was_heard() -> None:
    """
    Each ring after a wait ends the next one.
    """
    bell = Bell()
    heard = []
    for _ in range(3):
        bell.ring()
        heard.append(bell.wait(PATIENCE_S))

    assert [True] * 3 == heard


def test_nothing_is_missed() -> None:
    """
    Whatever is put down before a ring is found after a wait: nobody ever waits until the end of his patience.
    """
    bell, items = Bell(), SimpleQueue[int]()
    wanted = 4_000

    def put() -> None:
        for item in range(wanted // 4):
            items.put(item)
            bell.ring()

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    found, silent = 0, 0
    while found < wanted and not silent:
        silent += not bell.wait(PATIENCE_S)
        while not items.empty():
            items.get()
            found += 1
    for thread in threads:
        thread.join()

    assert (wanted, 0) == (found, silent)


def test_a_signal_may_ring_it(on_signal: Bell) -> None:
    """
    In the very thread that waits, within its wait: so a worker drains at once.
    """
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    assert on_signal.wait(PATIENCE_S)
