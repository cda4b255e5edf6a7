"""
Laws of comparing in half precision: the answer is that of single precision, bit for bit, over all banks.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.bank_builders import a_stored_bank, unit_rows
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_half_scan import HalfScan, Pairs
from worker.adapters.faiss_shelf import Shelf, build_shelf, search_shelf
from worker.adapters.faiss_whole_scan import WholeScan
from worker.bank.vectors import unit_rows as single_rows
from worker.domain import Embedding
from worker.heads.features import Matrix
from worker.settings.tree import BankSettings

SINGLE = BankSettings(index="flat", flat_scan="single")
HALF = BankSettings(index="flat", flat_scan="half")


@st.composite
def crowds(draw: st.DrawFn) -> NDArray[np.float64]:
    """
    Vectors that crowd a few places: equal, nearer to each other than bfloat16 can tell, or spread.
    """
    dim = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = rng.normal(size=(draw(st.integers(1, 6)), dim)) + draw(st.sampled_from([0.0, 5.0]))
    count = draw(st.integers(2, 400))
    spread = draw(st.sampled_from([0.0, 1e-4, 1e-3, 0.05, 1.0]))
    found: NDArray[np.float64] = places[rng.integers(0, len(places), count)] + spread * rng.normal(size=(count, dim))
    return found


@given(crowds(), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_half_is_single(vectors: NDArray[np.float64], k: int, seed: int) -> None:
    """
    The same references with the same similarities in the same order, ties included.
    """
    half = len(vectors) // 2
    stored = a_stored_bank({"real": vectors[:half], "ai_generated": vectors[half:]})
    anywhere = unit_rows(np.random.default_rng(seed).normal(size=(3, vectors.shape[1])))
    queries = [Embedding.from_half(row) for row in (*anywhere, *stored.vectors[:4])]

    assert FaissBank(stored, SINGLE).nearest(queries, k) == FaissBank(stored, HALF).nearest(queries, k)


@given(crowds(), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_whoever_may_be_among_the_nearest_is_proposed(vectors: NDArray[np.float64], k: int, seed: int) -> None:
    """
    Nobody who is left out is as near as the last one wanted, and nobody is proposed twice.
    """
    rows = unit_rows(vectors)
    scan = HalfScan(rows, np.arange(len(rows), dtype=np.int64))
    asked = single_rows(unit_rows(np.random.default_rng(seed).normal(size=(3, rows.shape[1]))))
    wanted = min(k, len(rows))

    assert_none_is_missing(rows, asked, scan, wanted)


@given(crowds(), st.integers(0, 2**32 - 1), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_all_that_are_so_near_are_gathered(vectors: NDArray[np.float64], seed: int, least: float) -> None:
    """
    In one pass; nobody is among them who is further off than rounding explains.
    """
    rows = unit_rows(vectors)
    members, lengths = np.arange(len(rows), dtype=np.int64), np.linalg.norm(rows.astype(np.float32), axis=1)
    query = single_rows(unit_rows(np.random.default_rng(seed).normal(size=(1, rows.shape[1]))))[0]
    true = single_rows(rows).astype(np.float64) @ query.astype(np.float64)

    gathered = WholeScan(rows, members, lengths).at_least(query, least)

    assert set(np.flatnonzero(true >= least + 2e-5)) <= set(gathered.tolist())
    assert (true[gathered] >= least - 3e-5).all()


def test_of_a_crowd_not_all_are_compared_in_double_precision() -> None:
    """
    Of 1500 near copies that bfloat16 cannot tell apart single precision can; they take one pass over the bank.
    """
    rng = np.random.default_rng(5)
    place = rng.normal(size=32)
    rows = unit_rows(np.concatenate([rng.normal(size=(3000, 32)), place + 0.01 * rng.normal(size=(1500, 32))]))
    members = np.arange(len(rows), dtype=np.int64)
    passes: list[tuple[int, int]] = []

    class Counted(HalfScan):
        """
        Notes each of its passes over the bank, and how many it proposed.
        """

        def near(self, queries: Matrix, wanted: int) -> Pairs:
            found = super().near(queries, wanted)
            passes.append((wanted, len(found[0])))
            return found

    ((found, _),) = search_shelf(Shelf(Counted(rows, members), members), unit_rows(place[None]).astype(np.float64), 18)
    single = build_shelf(rows, members, SINGLE, name="all")
    ((wanted, _),) = search_shelf(single, unit_rows(place[None]).astype(np.float64), 18)

    assert len(passes) == 1
    assert passes[0][0] == 18 <= passes[0][1] < 750
    np.testing.assert_array_equal(wanted, found)


def test_of_many_pieces_none_is_lost() -> None:
    """
    Over so many vectors that they lie in three pieces, of which the last has few, and are looked for in groups.
    """
    rng = np.random.default_rng(4)
    rows = unit_rows(rng.normal(size=(65_600, 8)))
    scan = HalfScan(rows, np.arange(len(rows), dtype=np.int64))
    asked = single_rows(unit_rows(rng.normal(size=(5, 8))))

    assert_none_is_missing(rows, asked, scan, 40)


def assert_none_is_missing(rows: NDArray[np.float16], asked: Matrix, scan: HalfScan, wanted: int) -> None:
    """
    What is proposed for each query holds everybody who is as similar as the last one wanted.
    """
    owners, numbers = scan.near(asked, wanted)
    true = asked.astype(np.float64) @ single_rows(rows).astype(np.float64).T

    for at in range(len(asked)):
        proposed = numbers[owners == at].tolist()
        nearest = np.flatnonzero(true[at] >= np.sort(true[at])[-wanted] - 1e-12)
        assert set(nearest.tolist()) <= set(proposed)
        assert len(set(proposed)) == len(proposed)
