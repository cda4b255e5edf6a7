"""
How deep ``find_neighbours`` asks the bank, and what comes back.
"""

from collections.abc import Sequence

import numpy as np

from tests.bank_builders import GENERATED, REAL, a_stored_bank
from tests.brute_force_bank import BruteForceBank
from worker.domain import BankIdentity, Embedding, Neighbourhood
from worker.stages.match import find_neighbours


class WatchedBank:
    """
    A bank that remembers how it was asked.
    """

    def __init__(self, reals: int, fakes: int) -> None:
        rng = np.random.default_rng(1)
        stored = a_stored_bank({"real": rng.normal(size=(reals, 4)), "ai_generated": rng.normal(size=(fakes, 4))})
        self._bank = BruteForceBank(stored)
        self.asked: list[tuple[int, int]] = []

    @property
    def identity(self) -> BankIdentity:
        """
        Which references these are.
        """
        return self._bank.identity

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        The answer of the bank behind.
        """
        self.asked.append((len(embeddings), k))
        return self._bank.nearest(embeddings, k)


def an_embedding(*numbers: float) -> Embedding:
    """
    The direction of these numbers.
    """
    return Embedding.from_features(np.array(numbers, dtype=np.float32))


def test_the_depth_is_the_votes() -> None:
    """
    Each label is asked for k of the smallest label and its like of the others: all that vote may be of one label.
    """
    bank = WatchedBank(reals=40, fakes=10)
    [found] = find_neighbours(bank, [an_embedding(1, 0, 0, 0)], k=3)

    assert bank.asked == [(1, 15)]
    assert (len(found.nearest[REAL]), len(found.nearest[GENERATED])) == (15, 10)


def test_one_search_for_all() -> None:
    """
    Many uploads cost one search, and the answers come in their order.
    """
    bank = WatchedBank(reals=20, fakes=20)
    uploads = [an_embedding(1, 0, 0, 0), an_embedding(0, 1, 0, 0), an_embedding(0, 0, 1, 1)]
    found = find_neighbours(bank, uploads, k=2)

    assert bank.asked == [(3, 4)]
    assert list(found) == [find_neighbours(bank, [upload], k=2)[0] for upload in uploads]


def test_no_uploads_no_search() -> None:
    """
    The bank is not bothered with nothing.
    """
    bank = WatchedBank(reals=2, fakes=2)

    assert list(find_neighbours(bank, [], k=9)) == []
    assert bank.asked == []
