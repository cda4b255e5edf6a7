"""
Progress of long work with its rate and the time left, for whoever has no terminal to draw bars on.

Bars are in ``progress_bars.py``, and those with a rate in the commands that have one.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from worker.ports import Clock

LINE_EVERY_S: Final = 10.0

LATELY_S: Final = 60.0
"""Over how long the rate is measured: of what goes slower than that, from one step to the next."""

_SAMPLE_EVERY_S: Final = 1.0


class Estimate:
    """
    How fast one kind of work has gone lately, and how long the rest takes at that speed.

    ``done`` is what lay behind it at ``now_s``, when this process began: what an earlier one did is no speed of this.
    """

    def __init__(self, done: int, now_s: float) -> None:
        self._done = done
        self._now_s = now_s
        self._samples = deque([(now_s, done)])

    def note(self, done: int, now_s: float) -> None:
        """
        So much is done now.
        """
        self._done, self._now_s = done, now_s
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - LATELY_S:
            self._samples.popleft()
        if now_s - self._samples[-1][0] >= _SAMPLE_EVERY_S:
            self._samples.append((now_s, done))

    @property
    def per_s(self) -> float | None:
        """
        How many in a second; None until there is something to tell it by.
        """
        since_s, before = self._samples[0]
        elapsed_s = self._now_s - since_s
        return (self._done - before) / elapsed_s if elapsed_s > 0 else None

    def eta_s(self, of: int) -> float | None:
        """
        Seconds until ``of`` are done; None while nothing moves.
        """
        per_s = self.per_s
        return (of - self._done) / per_s if per_s else None


class Estimates:
    """
    An estimate for each kind of work, begun when it is first told of.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_work: dict[str, Estimate] = {}

    def note(self, what: str, done: int) -> Estimate:
        """
        So much of this kind is done now.
        """
        now_s = self._clock.monotonic_s()
        estimate = self._by_work.setdefault(what, Estimate(done, now_s))
        estimate.note(done, now_s)
        return estimate


class ProgressLines:
    """
    Called with what is done, how many, of how many; writes a line of it, at most one in ``LINE_EVERY_S`` per kind.
    """

    def __init__(self, write: Callable[[str], None], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._estimates = Estimates(clock)
        self._told_s: dict[str, float] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        """
        Note it, and tell it if the last line is old enough. The first is due one interval after the beginning.
        """
        estimate, now_s = self._estimates.note(what, done), self._clock.monotonic_s()
        if now_s - self._told_s.setdefault(what, now_s) < LINE_EVERY_S:
            return
        self._told_s[what] = now_s
        per_s, eta_s = estimate.per_s, estimate.eta_s(of)
        rate = "unknown" if per_s is None else f"{per_s:.3f}"
        left = "unknown" if eta_s is None else f"{eta_s:.0f}"
        self._write(f"{what}: done={done} of={of} per_s={rate} eta_s={left}")
