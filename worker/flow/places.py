"""
Where images lie, as far as their failures may say something of us; which have delivered any, and which let us in.

Which places the operator names is in ``worker.adapters.image_places``; what is made of it, in ``storm.py``.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from worker.domain import Upload

HOSTS_REMEMBERED: Final = 4096
"""Beyond it, the host that has delivered nothing for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    A web host, a bucket or a folder.

    ``ours``: the operator names it. Any other is a host that whoever sent the upload may have made up.
    """

    name: str
    ours: bool


def nowhere(upload: Upload) -> Place | None:  # noqa: ARG001 - the signature of what says more
    """
    Of no upload it is known where its bytes lie.
    """
    return None


class Deliveries:
    """
    How many images each host that nobody names has delivered to this process.
    """

    def __init__(self) -> None:
        self._delivered: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """
        How many hosts are remembered.
        """
        return len(self._delivered)

    def add(self, place: Place) -> None:
        """
        One more from there.
        """
        if place.ours:
            return
        self._delivered[place.name] = self._delivered.pop(place.name, 0) + 1
        if len(self._delivered) > HOSTS_REMEMBERED:
            self._delivered.popitem(last=False)

    def of(self, place: Place) -> int:
        """
        How many there were from there.
        """
        return self._delivered.get(place.name, 0)


class Refusals:
    """
    How often in a row credentials of ours were refused at places that have delivered an image to this process.
    """

    def __init__(self) -> None:
        self._ours: OrderedDict[str, int] = OrderedDict()
        self._others: OrderedDict[str, int] = OrderedDict()

    def delivered(self, place: Place) -> None:
        """
        They are good there: begin anew.
        """
        among = self._among(place)
        among[place.name] = 0
        among.move_to_end(place.name)
        if len(self._others) > HOSTS_REMEMBERED:
            self._others.popitem(last=False)

    def refused(self, place: Place) -> None:
        """
        Once more.
        """
        among = self._among(place)
        if place.name in among:
            among[place.name] += 1

    def in_a_row(self, place: Place) -> int | None:
        """
        How often since it last delivered; None where it never has, or where that was too long ago.
        """
        return self._among(place).get(place.name)

    def _among(self, place: Place) -> OrderedDict[str, int]:
        # What the operator names is never forgotten for hosts that anybody may name.
        return self._ours if place.ours else self._others
