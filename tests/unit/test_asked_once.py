"""
A bank that is asked once answers as the bank itself, however deep and in whatever order it is asked.
"""

import numpy as np

from tests.head_worlds import a_world
from worker.heads.asked_once import AskedOnce
from worker.heads.features import Matrix
from worker.heads.reference_bank import ExactBank, Nearest, Projection, View


class Counted(ExactBank):
    """
    Brute force that counts its searches.
    """

    searches = 0

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        One more.
        """
        self.searches += 1
        return super().nearest(view, queries, k, projection)


def test_it_answers_as_the_bank_itself() -> None:
    """
    First shallow, then deep, then shallow again; of another view, and of queries that are equal but not the same.
    """
    world = a_world()
    bank = Counted(world)
    queries = world.features.unit
    asked = AskedOnce(bank, at_least=4)
    for view, asking, k in (
        ("global", queries, 2),
        ("global", queries, 7),
        ("global", queries, 1),
        ("native", world.features.native, 3),
        ("global", queries.copy(), 5),
    ):
        told = asked.nearest(view, asking, k)  # type: ignore[arg-type] # a literal in a tuple is text to mypy
        wanted = ExactBank(world).nearest(view, asking, k)  # type: ignore[arg-type] # likewise
        for one, other in ((told.positive, wanted.positive), (told.negative, wanted.negative)):
            assert np.array_equal(other.rows, one.rows)
            assert np.array_equal(other.similarity, one.similarity)

    assert 4 == bank.searches
    assert bank.dim == asked.dim
    assert bank.sizes("global") == asked.sizes("global")
