"""
The letters that a storm limit counts: those since the last good outcome, and those among the last outcomes.

Numbers only; what is too many, and which letters wait, is in ``storm.py``. Belongs to the consumer thread alone.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import ErrorCode
from worker.domain import Partition
from worker.flow.places import Place


@dataclass(slots=True, eq=False)
class Letter:
    """
    A dead letter that counts, published or not; ``run`` numbers the good outcomes before it, ``since_s`` is monotonic.

    ``doubtful``: the place, where whoever named it may have brought this about alone.
    """

    partition: Partition
    offset: int
    code: ErrorCode
    place: Place | None
    run: int
    since_s: float
    doubtful: Place | None = None
    published: bool = False


class Tally:
    """
    Letters, and good outcomes between them, in their order; beyond ``size`` the oldest is let go.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lately: deque[Letter | None] = deque()
        self._codes: Counter[ErrorCode] = Counter()
        self._doubtful: Counter[str] = Counter()

    def __len__(self) -> int:
        """
        How many outcomes there are in it.
        """
        return len(self._lately)

    @property
    def letters(self) -> int:
        """
        How many of them are letters.
        """
        return self._codes.total()

    @property
    def doubtful(self) -> int:
        """
        How many of the letters somebody may have brought about alone by naming a place.
        """
        return self._doubtful.total()

    @property
    def published(self) -> int:
        """
        How many of the letters are published.
        """
        return sum(letter.published for letter in self._lately if letter is not None)

    def codes(self) -> Counter[ErrorCode]:
        """
        How many letters there are of each code.
        """
        return self._codes

    def doubtful_of(self, place: Place) -> int:
        """
        How many of these letters are of this place.
        """
        return self._doubtful[place.name]

    def add(self, outcome: Letter | None) -> None:
        """
        One more: a letter, or None for a good outcome.
        """
        self._lately.append(outcome)
        self._weigh(outcome, 1)
        if len(self._lately) > self._size:
            self._weigh(self._lately.popleft(), -1)

    def drop(self, gone: Callable[[Letter], bool]) -> None:
        """
        Let these letters go, as if they had never been.
        """
        dropped = {one for one in self._lately if one is not None and gone(one)}
        if dropped:
            for one in dropped:
                self._weigh(one, -1)
            self._lately = deque(one for one in self._lately if one is None or one not in dropped)

    def clear(self) -> None:
        """
        Begin anew.
        """
        self._lately.clear()
        self._codes.clear()
        self._doubtful.clear()

    def _weigh(self, outcome: Letter | None, times: int) -> None:
        if outcome is None:
            return
        self._codes[outcome.code] += times
        place = outcome.doubtful
        if place is not None:
            self._doubtful[place.name] += times
            if not self._doubtful[place.name]:
                del self._doubtful[place.name]
