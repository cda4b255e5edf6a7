"""
Values made ahead, in threads of their own.
"""

from threading import Event, current_thread

import pytest
from structlog.testing import capture_logs

from worker.flow.ahead import Ahead
from worker.flow.crew import CrewThread

DEADLINE_S = 60.0


def test_the_value_is_made_while_others_go_on() -> None:
    """
    Making it begins at once, in a thread of the crew; asking for it waits until it is there.
    """
    asked_for = Event()

    def make() -> tuple[bool, bool]:
        return asked_for.wait(DEADLINE_S), isinstance(current_thread(), CrewThread)

    ahead = Ahead("value", make)
    asked_for.set()

    assert (True, True) == ahead.result() == ahead.result()


def test_a_fault_is_raised_for_each_who_asks() -> None:
    """
    It is what making raised, and no thread dies of it.
    """

    def fail() -> int:
        raise ValueError("no value")

    with capture_logs() as lines:
        ahead = Ahead("value", fail)
        for _ in range(2):
            with pytest.raises(ValueError, match="no value"):
                ahead.result()

    assert [] == lines


def test_none_is_a_value() -> None:
    """
    What was made is told apart from what is not there yet.
    """
    assert Ahead("value", lambda: None).result() is None
