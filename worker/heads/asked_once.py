"""
A bank for the length of one assessment: several heads ask the same of it, and it is searched once.
"""

from worker.heads.features import Matrix
from worker.heads.reference_bank import ClassSizes, Nearest, NearestOfClass, Projection, ReferenceBank, View


class AskedOnce:
    """
    Implements ``ReferenceBank`` over another; remembers what it was asked, so make one for every table of features.

    ``at_least``: how many neighbours are fetched even where fewer are asked for, since another head may ask for them.
    """

    def __init__(self, bank: ReferenceBank, *, at_least: int) -> None:
        self._bank = bank
        self._at_least = at_least
        # With the queries themselves: an array that is gone could leave its id to another.
        self._known: dict[tuple[View, int, str], tuple[Matrix, int, Nearest]] = {}

    @property
    def dim(self) -> int:
        """
        Dimensions of the space.
        """
        return self._bank.dim

    def sizes(self, view: View) -> ClassSizes:
        """
        Vectors per class in a view.
        """
        return self._bank.sizes(view)

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        As the bank's own: the first k of more neighbours are the k nearest.
        """
        key = (view, id(queries), "" if projection is None else projection.id)
        known = self._known.get(key)
        if known is None or known[1] < k:
            depth = max(k, self._at_least)
            known = (queries, depth, self._bank.nearest(view, queries, depth, projection))
            self._known[key] = known
        found = known[2]
        return Nearest(_first(found.positive, k), _first(found.negative, k))


def _first(found: NearestOfClass, k: int) -> NearestOfClass:
    return NearestOfClass(found.similarity[:, :k], found.rows[:, :k])
