"""
Faults that say nothing of a release, and how long a worker waits before it tries the same one again.

What it tries is in ``bank_watch.py``.
"""

from dataclasses import dataclass, field
from typing import Final

from schemas.bank_control import BankControlV1
from worker.errors import BankInvalid, CannotStart, EncoderInvalid
from worker.ports import Clock

LONGEST_S: Final = 300.0
"""Between two attempts: each may read gigabytes, and make room for a second bank."""

RECORDS: Final = 16
"""Of so many records that failed lately the count is kept; beyond it the one that failed longest ago begins again."""

_MOST_DOUBLINGS: Final = 16
_NEVER: Final = (0, float("-inf"))


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
    How often records failed in passing, and when each is tried again: at the next look, then after longer and longer.

    ``first_s``: the time between two looks. One for a watch, used by one thread.
    """

    clock: Clock
    first_s: float
    _failed: dict[BankControlV1, tuple[int, float]] = field(default_factory=dict)

    def due(self, control: BankControlV1) -> bool:
        """
        Whether it is time to try this record; always for one that did not fail.
        """
        return self.due_s(control) <= self.clock.monotonic_s()

    def due_s(self, control: BankControlV1) -> float:
        """
        When this record is tried again, by the clock; minus infinity where it did not fail.
        """
        return self._failed.get(control, _NEVER)[1]

    def failed(self, control: BankControlV1) -> None:
        """
        It failed in passing; to be told once for a look.
        """
        times = self._failed.pop(control, _NEVER)[0] + 1
        pause_s = self.first_s * (2 ** min(times - 1, _MOST_DOUBLINGS) - 1)
        self._failed[control] = (times, self.clock.monotonic_s() + min(pause_s, LONGEST_S))
        while len(self._failed) > RECORDS:
            del self._failed[next(iter(self._failed))]

    def ended(self, control: BankControlV1) -> None:
        """
        Nothing is to be tried again of this record.
        """
        self._failed.pop(control, None)
