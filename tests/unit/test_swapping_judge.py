"""
A shift that was measured, or not, for another judge than the one that judges.
"""

from collections.abc import Sequence

import pytest

from tests.builders import an_upload
from tests.fake_outcomes import ManualClock, an_outcome
from tests.sightings import SHIFT, a_hash, a_sighting
from worker.domain import Provenance, RawEvent, Sighting
from worker.errors import EventUnreadable
from worker.flow.lines import Slot
from worker.flow.swapping_judge import SwappingJudge
from worker.flow.travellers import Failed, Known, Passenger
from worker.outcomes import Outcome


class NotingJudge:
    """
    Wants every shift or none, and notes what it was asked to judge.
    """

    def __init__(self, *, wants: bool) -> None:
        self.wants = wants
        self.judged: list[Sighting] = []

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        Any outcome for each.
        """
        self.judged += [one.sighting for one in known]
        return [an_outcome() for _ in known]

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        As it was made.
        """
        return [self.wants] * len(sightings)

    def fail(self, failed: Failed) -> Outcome:
        """
        Nobody asks.
        """
        raise NotImplementedError

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        Nobody asks.
        """
        raise NotImplementedError


def known(clock: ManualClock, provenance: Provenance, *, after_s: float) -> Known:
    """
    An upload so long after the clock's present time, its shift measured.
    """
    upload = an_upload()
    raw = RawEvent(
        upload.raw.partition,
        0,
        key=None,
        value=None,
        headers=(),
        timestamp_ms=None,
        received_at_s=clock.wall_s() + after_s,
    )
    upload = type(upload)(raw, upload.identity, upload.data)
    content_hash = a_hash("picture")
    passenger = Passenger(Slot(raw), upload, content_hash, 1, None)
    return Known(passenger, a_sighting(content_hash, shift=SHIFT), provenance)


@pytest.mark.parametrize(
    ("provenance", "after_s", "wants", "kept"),
    [
        (Provenance("miss"), -1.0, False, False),
        (Provenance("miss"), -1.0, True, True),
        (Provenance("miss"), 1.0, False, True),
        (Provenance("hit", "redis"), 1.0, False, True),
        (Provenance("hit", "process"), 1.0, False, False),
        (Provenance("coalesced"), 1.0, False, False),
    ],
)
def test_what_may_come_from_before_a_swap_is_looked_at_again(
    provenance: Provenance, after_s: float, *, wants: bool, kept: bool
) -> None:
    """
    A shift that the new judge would not have had measured is taken away; what was made for it is left alone.
    """
    clock, new = ManualClock(), NotingJudge(wants=wants)
    swapping = SwappingJudge(NotingJudge(wants=True), clock, perturbation=True)
    swapping.swap(new)
    swapping.judge([known(clock, provenance, after_s=after_s)])

    assert [one.shift is not None for one in new.judged] == [kept]


@pytest.mark.parametrize(("swapped", "perturbation"), [(False, True), (True, False)])
def test_nothing_is_looked_at_where_it_cannot_matter(*, swapped: bool, perturbation: bool) -> None:
    """
    Before any swap, and where no shift is measured at all, sightings pass as they are.
    """
    clock, judge = ManualClock(), NotingJudge(wants=False)
    swapping = SwappingJudge(judge, clock, perturbation=perturbation)
    if swapped:
        swapping.swap(judge)
    swapping.judge([known(clock, Provenance("coalesced"), after_s=-1.0)])

    assert [one.shift for one in judge.judged] == [SHIFT]
