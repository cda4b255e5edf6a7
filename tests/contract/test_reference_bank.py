"""
What every side of the heads' bank must do: brute force in memory, and FAISS with each index.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank_builders import a_stored_bank, unit_rows
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_references import FaissReferences
from worker.adapters.faiss_shelf import mapped_shelf
from worker.bank.files import StoredBank
from worker.fingerprint import canonical_sha256
from worker.heads.features import Column, Matrix, Rows
from worker.heads.reference_bank import ABSENT, ClassSizes, ExactBank, NearestOfClass, Projection, ReferenceBank, View
from worker.settings.tree import BankSettings

EXHAUSTIVE = {
    "flat": BankSettings(index="flat", flat_scan="single"),
    "flat in half precision": BankSettings(index="flat", flat_scan="half"),
    "hnsw": BankSettings(index="hnsw", hnsw_ef_search=512),
    "ivf": BankSettings(index="ivf", ivf_lists=4, ivf_probes=4),
}
"""Each index with knobs at which it finds everything in a bank as small as these."""

VIEWS: tuple[View, ...] = ("global", "native")

Open = Callable[[StoredBank], ReferenceBank]


def exact(stored: StoredBank) -> ReferenceBank:
    """
    The reference that every other side is compared with.
    """
    return ExactBank(stored.references())


def through(settings_: BankSettings) -> Open:
    """
    Opens a bank through FAISS.
    """
    return lambda stored: FaissReferences(FaissBank(stored, settings_), stored)


@pytest.fixture(params=["exact", *EXHAUSTIVE])
def open_references(request: pytest.FixtureRequest) -> Open:
    """
    Opens a bank through one of the sides.
    """
    return exact if request.param == "exact" else through(EXHAUSTIVE[request.param])


@pytest.fixture(scope="module")
def stored() -> StoredBank:
    """
    200 real and 80 generated references of 16 dimensions, with up to three crops each.
    """
    rng = np.random.default_rng(5)
    vectors = {"real": rng.normal(size=(200, 16)), "ai_generated": rng.normal(size=(80, 16))}
    return a_stored_bank(vectors, crops=[row % 4 for row in range(280)])


def queries(count: int, dim: int = 16, seed: int = 9) -> Matrix:
    """
    Unit vectors anywhere.
    """
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    unit: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def a_projection(dim: int, rank: int, seed: int = 3) -> Projection:
    """
    Any linear map.
    """
    rng = np.random.default_rng(seed)
    mean = (0.1 * rng.normal(size=dim)).astype(np.float32)
    matrix = rng.normal(size=(dim, rank)).astype(np.float32)
    return Projection(canonical_sha256([mean.tolist(), matrix.tolist()]), mean, matrix)


def cosines_of(stored_: StoredBank, view: View, asked: Matrix, projection: Projection | None) -> tuple[Column, Rows]:
    """
    The cosine of every query with every vector of a view, in double precision, and the picture of each vector.
    """
    features = stored_.references().features
    vectors = features.unit if view == "global" else features.native
    owner: Rows = np.arange(len(features), dtype=np.int64) if view == "global" else features.native_owner
    if projection is not None:
        vectors, asked = projection(vectors), projection(asked)
    return asked.astype(np.float64) @ vectors.astype(np.float64).T, owner


def assert_same(ours: NearestOfClass, expected: NearestOfClass, cosines: Column, owner: Rows) -> None:
    """
    The same similarities in the same order, and each row one whose true cosine that is.

    Where cosines differ by less than arithmetic, either of two references may stand before the other.
    """
    assert ours.similarity.shape == expected.similarity.shape
    assert (ours.similarity.dtype.name, ours.rows.dtype.name) == ("float32", "int64")
    np.testing.assert_allclose(ours.similarity, expected.similarity, atol=1e-5)
    np.testing.assert_array_equal(ours.rows == ABSENT, expected.rows == ABSENT)
    for query, rows in enumerate(ours.rows):
        for at, row in enumerate(rows[rows != ABSENT]):
            of_row = cosines[query][owner == row]
            assert np.abs(of_row - ours.similarity[query, at]).min() < 1e-5


@st.composite
def banks(draw: st.DrawFn) -> StoredBank:
    """
    Two or three labels whose references crowd a few places, so that many are equal; crops of some or of none.
    """
    dim = draw(st.integers(2, 16))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = rng.normal(size=(draw(st.integers(1, 6)), dim))
    spread = draw(st.sampled_from([0.0, 1e-4, 0.05, 1.0]))
    labels = draw(st.sampled_from([("real", "ai_generated"), ("real", "edited", "ai_generated")]))
    vectors = {
        label: (found := places[rng.integers(0, len(places), draw(st.integers(1, 30)))])
        + spread * rng.normal(size=found.shape)
        for label in labels
    }
    count = sum(len(rows) for rows in vectors.values())
    crops = rng.integers(0, 4, count).tolist() if draw(st.booleans()) else None
    return a_stored_bank(vectors, crops=crops)


@pytest.mark.parametrize("index", ["flat", "flat in half precision"])
@given(banks(), st.integers(1, 40), st.sampled_from(VIEWS), st.none() | st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_faiss_is_brute_force(  # noqa: PLR0917 - drawn by Hypothesis, but for the first
    index: str, stored_: StoredBank, k: int, view: View, rank: int | None, seed: int
) -> None:
    """
    In either view, projected or not, with more asked for than there are, crowds and ties included.
    """
    dim = stored_.manifest.encoder.dim
    projection = None if rank is None else a_projection(dim, rank, seed)
    itself = stored_.references().features.unit[:2]
    asked = np.concatenate([queries(3, dim, seed), itself])
    ours = through(EXHAUSTIVE[index])(stored_).nearest(view, asked, k, projection)
    expected = exact(stored_).nearest(view, asked, k, projection)
    cosines, owner = cosines_of(stored_, view, asked, projection)

    assert_same(ours.positive, expected.positive, cosines, owner)
    assert_same(ours.negative, expected.negative, cosines, owner)


def test_sizes_and_dimensions(open_references: Open, stored: StoredBank) -> None:
    """
    Pictures in the global view, crops in the native one.
    """
    bank = open_references(stored)

    assert bank.dim == 16
    assert bank.sizes("global") == ClassSizes(80, 200)
    assert bank.sizes("native") == ClassSizes(120, 300)


def test_the_classes_answer_for_themselves(open_references: Open, stored: StoredBank) -> None:
    """
    Rows are those of pictures of the class, also where crops were searched; nearest first.
    """
    bank = open_references(stored)
    positive = stored.references().positive
    for view in VIEWS:
        found = bank.nearest(view, queries(4), 9)

        assert positive[found.positive.rows].all()
        assert not positive[found.negative.rows].any()
        assert (np.diff(found.positive.similarity, axis=1) <= 0).all()


def test_more_than_there_are_is_absent(open_references: Open, stored: StoredBank) -> None:
    """
    The places beyond a small class hold no row, at the least similarity there is.
    """
    found = open_references(stored).nearest("global", queries(2), 100)

    assert (found.positive.rows[:, 80:] == ABSENT).all()
    assert (found.positive.similarity[:, 80:] == -1).all()
    assert (found.positive.rows[:, :80] >= 0).all()
    assert (found.negative.rows >= 0).all()


def test_a_bank_without_crops_has_no_native_neighbours(open_references: Open) -> None:
    """
    Nothing is near, and that is no error.
    """
    rng = np.random.default_rng(1)
    bare = a_stored_bank({"real": rng.normal(size=(9, 16)), "ai_generated": rng.normal(size=(5, 16))})
    bank = open_references(bare)
    found = bank.nearest("native", queries(2), 3)

    assert bank.sizes("native") == ClassSizes(0, 0)
    for side in (found.positive, found.negative):
        assert (side.rows == ABSENT).all()
        assert (side.similarity == -1).all()


def test_ties_come_in_the_order_of_the_bank(open_references: Open) -> None:
    """
    Forty equal references: the first nine, each time, though an index may propose any.
    """
    rng = np.random.default_rng(3)
    same = np.repeat(rng.normal(size=(1, 16)), 40, axis=0)
    crowd = a_stored_bank({"real": np.concatenate([rng.normal(size=(60, 16)), same]), "ai_generated": same})
    found = open_references(crowd).nearest("global", crowd.references().features.unit[70:71], 9)

    assert list(range(60, 69)) == found.negative.rows[0].tolist()
    assert list(range(100, 109)) == found.positive.rows[0].tolist()


def test_nothing_asked_nothing_answered(open_references: Open, stored: StoredBank) -> None:
    """
    An empty search has k columns and no rows.
    """
    found = open_references(stored).nearest("native", queries(0), 3)

    assert (found.positive.rows.shape, found.negative.similarity.shape) == ((0, 3), (0, 3))


@pytest.mark.parametrize("settings_", EXHAUSTIVE.values(), ids=EXHAUSTIVE)
def test_companions_do_not_change_an_answer(settings_: BankSettings, stored: StoredBank) -> None:
    """
    Alone or among thirty, in either view: through FAISS the answer is equal to the last bit.
    """
    bank, every = through(settings_)(stored), queries(30)
    for view in VIEWS:
        together = bank.nearest(view, every, 7)
        alone = [bank.nearest(view, every[at : at + 1], 7) for at in range(30)]

        np.testing.assert_array_equal(together.positive.rows, np.concatenate([one.positive.rows for one in alone]))
        np.testing.assert_array_equal(
            together.negative.similarity, np.concatenate([one.negative.similarity for one in alone])
        )


@pytest.mark.parametrize(
    ("asked", "k", "message"),
    [
        (queries(1), 0, "want at least 1"),
        (queries(1, dim=17), 3, r"queries are \[1, 17\], want \[n, 16\]"),
        (queries(1)[0], 3, r"queries are \[16\]"),
        (np.full((1, 16), np.nan, np.float32), 3, "not finite"),
        (np.full((1, 16), np.inf, np.float32), 3, "not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(stored: StoredBank, asked: Matrix, k: int, message: str) -> None:
    """
    FAISS answers a NaN query like one that is near to nothing: an open door, so it never gets there.
    """
    with pytest.raises(ValueError, match=message):
        through(EXHAUSTIVE["flat"])(stored).nearest("global", asked, k)


def test_an_approximate_index_may_find_fewer(stored: StoredBank) -> None:
    """
    FAISS fills up with id -1 when its probes hold fewer than asked for: those places are absent, never the last row.
    """
    bank = through(BankSettings(index="ivf", ivf_lists=5, ivf_probes=1))(stored)
    found = bank.nearest("global", queries(5), 150).negative
    there = found.rows != ABSENT

    assert 0 < there.sum() < there.size
    assert (found.similarity[~there] == -1).all()
    for rows in found.rows:
        kept = rows[rows != ABSENT]
        assert len(set(kept.tolist())) == len(kept)


def test_the_global_vectors_are_not_held_twice(stored: StoredBank) -> None:
    """
    The heads' bank searches the very indexes of the neighbours' bank.
    """
    searched = FaissBank(stored, EXHAUSTIVE["flat"])
    sides = FaissReferences(searched, stored)._views["global"]

    assert {id(shelf.index) for shelf in (*sides.positive, *sides.negative)} == {
        id(shelf.index) for shelf in searched.shelves.values()
    }


def test_a_projection_is_applied_to_the_bank_once(stored: StoredBank) -> None:
    """
    Also when eight threads ask for it at once; another projection is another one.
    """
    bank, projection = through(EXHAUSTIVE["flat"])(stored), a_projection(16, 4)
    with (
        patch("worker.adapters.faiss_references.mapped_shelf", wraps=mapped_shelf) as mapped,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(lambda _: bank.nearest("global", queries(3), 5, projection), range(24)))
        first = mapped.call_count
        bank.nearest("global", queries(3), 5, a_projection(16, 4, seed=8))
        second = mapped.call_count

    assert (first, second) == (2, 4)
    for one in found:
        np.testing.assert_array_equal(one.positive.rows, found[0].positive.rows)


def test_a_vector_on_the_mean_is_near_to_nothing(open_references: Open) -> None:
    """
    It has no direction once projected: its similarity is 0 to all, and nothing is not a number.
    """
    reals, fakes = queries(6, seed=1), queries(4, seed=2)
    bank = open_references(a_stored_bank({"real": reals, "ai_generated": fakes}))
    query = queries(1, seed=5)
    projection = Projection("f" * 64, query[0], np.eye(16, 3, dtype=np.float32))
    found = bank.nearest("global", query, 3, projection)

    assert found.positive.similarity.tolist() == [[0, 0, 0]]
    assert found.negative.rows.tolist() == [[0, 1, 2]]


def test_references_are_what_the_bank_holds(stored: StoredBank) -> None:
    """
    In single precision, of length 1 and in the order of the entries; positive by the question.
    """
    references = stored.references()
    features = references.features

    assert (features.unit.dtype.name, features.native.dtype.name) == ("float32", "float32")
    np.testing.assert_allclose(np.linalg.norm(features.unit, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(unit_rows(features.unit), unit_rows(stored.vectors))
    np.testing.assert_array_equal(features.native_owner, stored.stored.native_owner)
    np.testing.assert_array_equal(features.norm, stored.stored.norms)
    np.testing.assert_array_equal(features.realism, stored.stored.realism)
    assert np.isnan(features.shift).all()
    assert (references.positive.sum(), len(references)) == (80, 280)
    assert references.content == tuple(entry.sha256 for entry in stored.entries)
    assert references.source == tuple(entry.source for entry in stored.entries)
    assert references.generator == (None,) * 280
    assert set(features.format) == {"PNG"}
    assert set(features.short_side_px.tolist()) == {30.0}
