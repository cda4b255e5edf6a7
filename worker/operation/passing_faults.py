"""
Faults that say nothing of a release, and how long a worker waits before it tries the same one again.

What it tries is in ``bank_watch.py``.
"""

from dataclasses import dataclass
from typing import Final

from schemas.bank_control import BankControlV1
from worker.errors import BankInvalid, CannotStart, EncoderInvalid
from worker.ports import Clock

LONGEST_S: Final = 300.0
"""Between two attempts: each may read gigabytes, and make room for a second bank."""

_MOST_DOUBLINGS: Final = 16


def is_passing(fault: BaseException | None) -> bool:
    """
    Whether trying again may help: what could not be reached or read, or for which there was no memory.
    """
    if isinstance(fault, (BankInvalid, EncoderInvalid)):
        return False
    return isinstance(fault, (CannotStart, OSError, MemoryError))


@dataclass(slots=True)
class Attempts:
    """
    How often one record failed in passing, and when it is tried again: at the next look, then after longer and longer.

    ``first_s``: the time between two looks. One for a watch, used by one thread.
    """

    clock: Clock
    first_s: float
    _control: BankControlV1 | None = None
    _failed: int = 0
    _due_s: float = 0.0

    def due(self, control: BankControlV1) -> bool:
        """
        Whether it is time to try this record; always for one that did not fail last.
        """
        return control != self._control or self.clock.monotonic_s() >= self._due_s

    def failed(self, control: BankControlV1) -> None:
        """
        It failed in passing.
        """
        self._failed = self._failed + 1 if control == self._control else 1
        self._control = control
        pause_s = self.first_s * (2 ** min(self._failed - 1, _MOST_DOUBLINGS) - 1)
        self._due_s = self.clock.monotonic_s() + min(pause_s, LONGEST_S)

    def ended(self) -> None:
        """
        Nothing is to be tried again.
        """
        self._control, self._failed = None, 0
