"""
The judge that can be exchanged while uploads flow.

What is exchanged, when and why, is ``worker/operation/bank_watch.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from worker.domain import RawEvent, Sighting
from worker.errors import EventUnreadable
from worker.flow.judging import Judge
from worker.flow.travellers import Failed, Known
from worker.outcomes import Outcome
from worker.ports import Clock
from worker.views import has_shift, with_shift_where


@dataclass(frozen=True, slots=True)
class _Held:
    judge: Judge
    since_s: float | None


class SwappingJudge:
    """
    Implements ``Judge`` by the one that it holds at the moment of a call: one call, one judge, one version.

    A swap waits for nobody and nobody waits for it: a batch that is being judged ends as it began. A micro-batch comes
    in one call; only where that call fails, and its uploads are judged again one by one, may a swap fall between them.

    Whether the shift of perturbed copies was measured of a sighting was decided by the judge of that time. What may
    come from before the last swap is therefore looked at again: a shift that the present judge would not have wanted is
    taken away. One that it would have wanted is not there to be had, so that its head is named among the verdict's
    missing ones: a hole for the uploads in flight during a swap, and for their twins.
    """

    def __init__(self, judge: Judge, clock: Clock, *, perturbation: bool = False) -> None:
        self._clock = clock
        self._perturbation = perturbation
        self._held = _Held(judge, None)

    def swap(self, judge: Judge) -> None:
        """
        Judge by this one from the next call on.
        """
        # One assignment, for readers in other threads see the old pair or the new one.
        self._held = _Held(judge, self._clock.wall_s())

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        As the judge that is held when the call begins.
        """
        held = self._held
        return held.judge.judge(self._as_if_new(held, known))

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        As the judge that is held.
        """
        return self._held.judge.wants_shift(sightings)

    def fail(self, failed: Failed) -> Outcome:
        """
        As the judge that is held.
        """
        return self._held.judge.fail(failed)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        As the judge that is held.
        """
        return self._held.judge.dead_letter(raw, unreadable)

    def _as_if_new(self, held: _Held, known: Sequence[Known]) -> Sequence[Known]:
        since_s = held.since_s
        if since_s is None or not self._perturbation:
            return known
        doubtful = [at for at, one in enumerate(known) if has_shift(one.sighting) and _older(one, since_s)]
        if not doubtful:
            return known
        looks = [look for at in doubtful for look in known[at].sighting.looks]
        wanted = iter(held.judge.wants_shift(looks))
        cleaned = list(known)
        for at in doubtful:
            sighting = known[at].sighting
            wants = [next(wanted) for _ in sighting.looks]
            cleaned[at] = replace(known[at], sighting=with_shift_where(sighting, wants))
        return cleaned


def _older(known: Known, since_s: float) -> bool:
    """
    Whether a sighting may have been made before: its upload came before, or it was shared with one that may have.
    """
    provenance = known.provenance
    shared = provenance.tier == "process" or provenance.status == "coalesced"
    return shared or known.passenger.upload.raw.received_at_s <= since_s
