"""
What every side of the bank's port must do: FAISS with each index, and the in-memory one.
"""

from collections.abc import Callable

import numpy as np
import pytest

from tests.bank_builders import GENERATED, REAL, a_stored_bank, unit_rows
from tests.brute_force_bank import BruteForceBank
from worker.adapters.faiss_bank import FaissBank
from worker.bank.files import StoredBank
from worker.domain import Embedding
from worker.ports import Bank
from worker.settings.tree import BankSettings

DIM = 16
EXHAUSTIVE = {
    "flat": BankSettings(index="flat", flat_scan="single"),
    "flat in half precision": BankSettings(index="flat", flat_scan="half"),
    "hnsw": BankSettings(index="hnsw", hnsw_ef_search=512),
    "ivf": BankSettings(index="ivf", ivf_lists=4, ivf_probes=4),
}
"""Each index with knobs at which it finds everything in a bank as small as these."""

Open = Callable[[StoredBank], Bank]


@pytest.fixture(params=["brute force", *EXHAUSTIVE])
def open_bank(request: pytest.FixtureRequest) -> Open:
    """
    Opens a bank through one of the sides.
    """
    if request.param == "brute force":
        return BruteForceBank
    return lambda stored: FaissBank(stored, EXHAUSTIVE[request.param])


@pytest.fixture(scope="module")
def stored() -> StoredBank:
    """
    A bank of 200 real and 80 generated references.
    """
    rng = np.random.default_rng(5)
    return a_stored_bank({"real": rng.normal(size=(200, DIM)), "ai_generated": rng.normal(size=(80, DIM))})


def queries(count: int, seed: int = 9) -> list[Embedding]:
    """
    Embeddings anywhere.
    """
    rows = unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)))
    return [Embedding.from_half(row) for row in rows]


def test_the_oracle_agrees(open_bank: Open, stored: StoredBank) -> None:
    """
    The same references in the same order, with the same cosines.
    """
    found = open_bank(stored).nearest(queries(7), 10)
    expected = BruteForceBank(stored).nearest(queries(7), 10)

    for one, other in zip(found, expected, strict=True):
        for label in (REAL, GENERATED):
            assert [n.entry for n in one.nearest[label]] == [n.entry for n in other.nearest[label]]
            assert [n.similarity for n in one.nearest[label]] == pytest.approx(
                [n.similarity for n in other.nearest[label]], abs=1e-6
            )


def test_every_label_answers_for_itself(open_bank: Open, stored: StoredBank) -> None:
    """
    As many of each label as asked for, whatever the other's, fewer only where there are fewer; sizes are the bank's.
    """
    [found] = open_bank(stored).nearest(queries(1), 100)

    assert {REAL: 100, GENERATED: 80} == {label: len(neighbours) for label, neighbours in found.nearest.items()}
    assert {n.entry.label for n in found.nearest[REAL]} == {REAL}
    assert found.sizes == {REAL: 200, GENERATED: 80}


def test_nothing_asked_nothing_answered(open_bank: Open, stored: StoredBank) -> None:
    """
    An empty search is not an error.
    """
    assert list(open_bank(stored).nearest([], 3)) == []


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(open_bank: Open, stored: StoredBank, k: int) -> None:
    """
    Zero neighbours would look like a bank that knows nothing.
    """
    with pytest.raises(ValueError, match="want at least 1"):
        open_bank(stored).nearest(queries(1), k)


def test_another_dimension_is_refused(open_bank: Open, stored: StoredBank) -> None:
    """
    An embedding of another encoder is a fault, not an upload without neighbours.
    """
    foreign = Embedding.from_features(np.ones(DIM + 1, dtype=np.float32))

    with pytest.raises(ValueError, match=f"{DIM + 1} dimensions, want {DIM}"):
        open_bank(stored).nearest([*queries(1), foreign], 3)


def test_what_is_not_finite_is_refused(open_bank: Open, stored: StoredBank) -> None:
    """
    FAISS answers a NaN query like one that is near to nothing: an open door, so it never gets there.
    """
    broken = queries(1)[0]
    broken.vector[3] = np.nan  # behind the constructor's back: the adapter must not rely on it

    with pytest.raises(ValueError, match="finite"):
        open_bank(stored).nearest([broken], 3)


def test_a_reference_finds_itself(open_bank: Open, stored: StoredBank) -> None:
    """
    With a cosine of 1, never more, though rounding to half moved its norm.
    """
    for row in (0, 17, 250):
        [found] = open_bank(stored).nearest([Embedding.from_half(stored.vectors[row])], 1)
        itself = stored.entries.entry(row)
        [nearest] = found.nearest[itself.label]

        assert nearest.entry == itself
        assert nearest.similarity == pytest.approx(1, abs=1e-6)
        assert nearest.similarity <= 1


def test_companions_do_not_change_an_answer(open_bank: Open, stored: StoredBank) -> None:
    """
    Alone, among seven and among forty: the same neighbours and, to six digits and beyond, the same numbers.
    """
    bank = open_bank(stored)
    every = queries(40)
    alone = [bank.nearest([query], 9)[0] for query in every]

    assert list(bank.nearest(every, 9)) == alone
    assert list(bank.nearest(every[:7], 9)) == alone[:7]
    assert list(bank.nearest(every[::-1], 9)) == alone[::-1]


def test_ties_come_in_the_order_of_the_entries(open_bank: Open) -> None:
    """
    Sixty equal references: the first nine, each time, though an index may propose any.
    """
    rng = np.random.default_rng(3)
    same = np.repeat(rng.normal(size=(1, DIM)), 60, axis=0)
    stored = a_stored_bank({"real": np.concatenate([rng.normal(size=(100, DIM)), same]), "ai_generated": same[:50]})
    query = Embedding.from_half(stored.vectors[130])
    [found] = open_bank(stored).nearest([query], 9)

    assert [n.entry for n in found.nearest[REAL]] == [stored.entries.entry(row) for row in range(100, 109)]
    assert [n.entry for n in found.nearest[GENERATED]] == [stored.entries.entry(row) for row in range(160, 169)]


def test_identity_is_the_manifests(open_bank: Open, stored: StoredBank) -> None:
    """
    What a verdict says of the bank comes from its manifest, but for the index.
    """
    identity = open_bank(stored).identity

    assert (identity.id, identity.version, identity.entries) == ("in-memory", "1", 280)
    assert identity.manifest_sha256 == stored.manifest_sha256
    assert (identity.sizes, identity.positive) == ({REAL: 200, GENERATED: 80}, GENERATED)
