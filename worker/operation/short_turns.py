"""
Work beside the flow that must not hold it up: while it lasts, Python threads take turns more often.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TURN_S: Final = 0.0002
"""How long a thread that runs Python may keep another waiting for its turn; Python's own default is 25 times that."""

_one_at_a_time: Final = threading.Lock()


@contextmanager
def short_turns() -> Iterator[None]:
    """
    While inside, no thread of this process waits longer than ``TURN_S`` for one that runs plain Python.

    An encoder waits for its turn again after each of its operations: with Python's 5 ms a forward pass of 30 operations
    lasted 150 ms instead of 6 ms while 20 000 entries were parsed. Not for always: whoever has all threads busy pays
    for each turn. Calls into libraries that keep the interpreter to themselves are not shortened by this. A second
    thread that comes in waits until the first is out.
    """
    with _one_at_a_time:
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(min(TURN_S, usual_s))
        try:
            yield
        finally:
            sys.setswitchinterval(usual_s)
