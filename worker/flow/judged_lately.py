"""
What was made of sightings that came again, for as long as these sightings are kept anywhere in the process.

How long a sighting is kept, and that it is forgotten, is the affair of ``single_flight.py``; nothing here outlives it.
"""

from collections.abc import Callable
from typing import NamedTuple
from weakref import ReferenceType, ref

from worker.domain import Judgement, Sighting


class _Entry(NamedTuple):
    sighting: "ReferenceType[Sighting]"
    by_surface: dict[str, Judgement]


class JudgedLately:
    """
    Judgements of one judge, by the very sighting and the surface that they are of; any thread may call.

    The bank, the policy and the fitted judgement do not change under a judge, and what it says of a sighting depends on
    nothing else. A sighting is known by being the same object: one that was read anew is judged anew. None is held
    here, and with the last reference to one goes what was made of it, so that who forgets a sighting forgets that too.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._here = ref(self)

    def __len__(self) -> int:
        """
        Of how many sightings something is known.
        """
        return len(self._entries)

    def of(self, sighting: Sighting, surface: str) -> Judgement | None:
        """
        The judgement that was remembered; None where there is none.
        """
        entry = self._entries.get(id(sighting))
        # An id may be another's by now only once its entry is gone; asked all the same.
        return None if entry is None or entry.sighting() is not sighting else entry.by_surface.get(surface)

    def remember(self, sighting: Sighting, surface: str, judgement: Judgement) -> None:
        """
        Keep it as long as somebody else keeps the sighting.
        """
        number = id(sighting)
        entry = self._entries.get(number)
        if entry is None:
            entry = self._entries[number] = _Entry(ref(sighting, self._letting_go(number)), {})
        entry.by_surface[surface] = judgement

    def _letting_go(self, number: int) -> "Callable[[ReferenceType[Sighting]], None]":
        here = self._here  # not held: a judge that was exchanged goes at once, with all that it said

        def let_go(_: "ReferenceType[Sighting]") -> None:
            lately = here()
            if lately is not None:
                lately._entries.pop(number, None)  # noqa: SLF001 - its own, out of a function that must not hold it

        return let_go
