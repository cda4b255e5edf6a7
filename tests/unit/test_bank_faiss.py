"""
What is FAISS's own: approximate indexes that find less, and what is said of them.
"""

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.bank_builders import GENERATED, REAL, a_stored_bank
from worker.adapters.faiss_bank import FaissBank
from worker.bank.files import StoredBank
from worker.domain import Embedding
from worker.settings.tree import BankSettings


@pytest.fixture(scope="module")
def stored() -> StoredBank:
    """
    Ten far-apart crowds of real references, and few generated ones.
    """
    rng = np.random.default_rng(6)
    crowds = np.repeat(10 * np.eye(12)[:10], 50, axis=0) + 0.1 * rng.normal(size=(500, 12))
    return a_stored_bank({"real": crowds, "ai_generated": rng.normal(size=(50, 12))})


def test_nothing_stands_for_nothing(stored: StoredBank) -> None:
    """
    FAISS fills up with id -1 when its probes hold fewer than asked for: what comes out is shorter, never wrong.
    """
    bank = FaissBank(stored, BankSettings(index="ivf", ivf_lists=10, ivf_probes=1))
    query = Embedding.from_half(stored.vectors[0])
    [found] = bank.nearest([query], 300)
    similarities = [neighbour.similarity for neighbour in found.nearest[REAL]]

    assert 0 < len(similarities) < 300
    assert similarities == sorted(similarities, reverse=True)
    assert len({neighbour.entry.id for neighbour in found.nearest[REAL]}) == len(similarities)
    assert {neighbour.entry.label for neighbour in found.nearest[REAL]} == {REAL}
    assert len(found.nearest[GENERATED]) == 50  # one list holds them all


def test_too_few_vectors_get_fewer_lists_and_it_is_said(stored: StoredBank) -> None:
    """
    In the log with the reason, and in the identity that every verdict carries.
    """
    with capture_logs() as logged:
        bank = FaissBank(stored, BankSettings(index="ivf", ivf_lists=12, ivf_probes=4))

    assert bank.identity.index == "ivf(real=12/4,ai_generated=1/1)"
    assert [(line["event"], line["label"], line["used"]) for line in logged] == [("bank.lists_reduced", GENERATED, 1)]


def test_training_is_the_same_each_time(stored: StoredBank) -> None:
    """
    Two workers with one bank and one configuration find the same.
    """
    settings = BankSettings(index="ivf", ivf_lists=10, ivf_probes=2)
    queries = [Embedding.from_half(stored.vectors[row]) for row in range(0, 550, 11)]

    assert list(FaissBank(stored, settings).nearest(queries, 20)) == list(
        FaissBank(stored, settings).nearest(queries, 20)
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (BankSettings(index="flat"), "flat"),
        (BankSettings(index="hnsw", hnsw_links=8, hnsw_ef_search=40), "hnsw(links=8,ef_search=40)"),
    ],
)
def test_the_identity_names_the_index(stored: StoredBank, settings: BankSettings, expected: str) -> None:
    """
    With its knobs.
    """
    assert FaissBank(stored, settings).identity.index == expected
