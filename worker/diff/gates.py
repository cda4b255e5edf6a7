"""
Bounds on a difference: what an operator allows before a bank, a policy or a model is promoted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

import numpy as np

from worker.diff.comparison import Comparison, Side
from worker.diff.shifts import ABSOLUTE_LEVELS, quantile
from worker.errors import ConfigInvalid

_DECIMAL: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_ALL_PERCENT: Final = Decimal(100)


@dataclass(frozen=True, slots=True)
class Bound:
    """
    The most that is allowed: a count, or a share of the events in percent.
    """

    most: Decimal
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        ``12`` or ``0.5%``; raises ``ConfigInvalid`` for anything else.
        """
        number, percent = text.removesuffix("%").strip(), text.endswith("%")
        if _DECIMAL.fullmatch(number) is None or not (percent or number.isdigit()):
            raise ConfigInvalid(f"{text!r} is no bound; expected a count such as 12, or a share such as 0.5%")
        if percent and Decimal(number) > _ALL_PERCENT:
            raise ConfigInvalid(f"{text!r} is no bound; expected a share of at most 100%")
        return cls(Decimal(number), percent)

    def allows(self, count: int, of: int) -> bool:
        """
        Whether ``count`` out of ``of`` is within the bound; exactly at it is.
        """
        # Cross-multiplied in decimals: 3 of 300 is exactly 1 %.
        return self.most * of >= count * _ALL_PERCENT if self.percent else count <= self.most

    def __str__(self) -> str:
        return f"{self.most}{'%' if self.percent else ''}"


@dataclass(frozen=True, slots=True)
class ShiftBound:
    """
    The most that a quantile of the scores' absolute shift may be.
    """

    quantile: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        ``0.05`` for the 99th percentile, or a named one as in ``max=0.2``; raises ``ConfigInvalid`` otherwise.
        """
        name, _, number = text.rpartition("=")
        name = name or "p99"
        if name not in ABSOLUTE_LEVELS or _DECIMAL.fullmatch(number) is None:
            raise ConfigInvalid(
                f"{text!r} is no bound on the score shift; expected a number such as 0.05 for the 99th percentile, or "
                f"NAME=NUMBER with one of {', '.join(ABSOLUTE_LEVELS)}"
            )
        return cls(name, float(number))


@dataclass(frozen=True, slots=True)
class Gates:
    """
    Every bound that was asked for.
    """

    flips: Bound | None = None
    flips_to: Sequence[tuple[str, Bound]] = ()
    score_shift: Sequence[ShiftBound] = ()
    missing: Bound | None = None
    require_equal: bool = False

    @property
    def asked(self) -> bool:
        """
        Whether there is any.
        """
        return bool(self.flips or self.flips_to or self.score_shift or self.missing or self.require_equal)


@dataclass(frozen=True, slots=True)
class GateResult:
    """
    One gate: what was allowed, what was found, and whether that is within it.
    """

    name: str
    allowed: str
    found: str
    passed: bool


def judge_gates(gates: Gates, found: Comparison, unfinished: Sequence[str] = ()) -> list[GateResult]:
    """
    Each gate in its turn, and before them what lets none pass, where it is found.

    That is: no event in common, for nothing was compared; an upload that one replay judged twice; and ``unfinished``,
    which says of each replay that is not known to have finished why not.
    """
    return [*_obstacles(found, unfinished), *_results(gates, found)] if gates.asked else []


def _obstacles(found: Comparison, unfinished: Sequence[str]) -> Iterator[GateResult]:
    if found.compared == 0:
        yield GateResult("compared", "at least 1 event", "0 events in both A and B", passed=False)
    if found.a.repeats or found.b.repeats:
        told = f"{_repeated('A', found.a)}, {_repeated('B', found.b)}"
        yield GateResult("once", "one verdict of a replay on an upload", told, passed=False)
    for one in unfinished:
        yield GateResult("finished", "finished replays", one, passed=False)


def _repeated(word: str, side: Side) -> str:
    if side.first_repeat is None:
        return f"none more in {word}"
    event, run_id = side.first_repeat
    return f"{side.repeats} more in {word} (the first on event {event.id}, by run {run_id})"


def _results(gates: Gates, found: Comparison) -> Iterator[GateResult]:
    if gates.flips is not None:
        yield _counted("max-flips", gates.flips, found.flips, found.compared)
    for label, bound in gates.flips_to:
        flips = sum(count for (_, after), count in found.overall.transitions.items() if after == label)
        yield _counted(f"max-flips-to {label}", bound, flips, found.compared)
    for bound_of_shift in gates.score_shift:
        yield _shifted(bound_of_shift, found)
    if gates.missing is not None:
        alone = found.a.alone + found.b.alone
        yield _counted("max-missing", gates.missing, alone, found.compared + alone)
    if gates.require_equal:
        unequal = found.differing + found.a.alone + found.b.alone
        told = f"{found.differing} differ, {found.a.alone} only in A, {found.b.alone} only in B"
        yield GateResult("require-equal", "no difference", told, passed=unequal == 0)


def _shifted(bound: ShiftBound, found: Comparison) -> GateResult:
    value = quantile(np.abs(found.shifts), ABSOLUTE_LEVELS[bound.quantile])
    told = "no event has a score in both A and B" if value is None else f"{value:g}"
    passed = value is not None and value <= bound.most
    return GateResult(f"max-score-shift {bound.quantile}", f"{bound.most:g}", told, passed=passed)


def _counted(name: str, bound: Bound, count: int, of: int) -> GateResult:
    share = f" ({count / of:.3%} of {of})" if of else ""
    return GateResult(name, str(bound), f"{count}{share}", passed=bound.allows(count, of))
