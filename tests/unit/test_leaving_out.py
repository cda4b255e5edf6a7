"""
A bank without some of its references answers like one that never had them, under an identity that says so.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.bank_builders import GENERATED, REAL, a_stored_bank
from tests.brute_force_bank import BruteForceBank
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_references import FaissReferences
from worker.bank.files import StoredBank
from worker.bank.leaving_out import Without, leave_out
from worker.domain import Embedding
from worker.errors import BankInvalid
from worker.heads.reference_bank import ExactBank
from worker.settings.tree import BankSettings
from worker.shipped import STARTER_BANK
from worker.whole_banks import WholeBank, left_out, read_bank

DIM, PER_LABEL = 12, 9


def a_bank(crops: bool = False) -> StoredBank:
    """
    Nine references of each of two labels.
    """
    rng = np.random.default_rng(5)
    vectors: dict[str, NDArray[np.floating]] = {label: rng.normal(size=(PER_LABEL, DIM)) for label in (REAL, GENERATED)}
    return a_stored_bank(vectors, crops=[at % 3 for at in range(2 * PER_LABEL)] if crops else None)


def ids_of(bank: StoredBank) -> list[str]:
    """
    The ids in order.
    """
    return [entry.id for entry in bank.entries]


def some_queries() -> list[Embedding]:
    """
    Five directions.
    """
    return [Embedding.from_features(row) for row in np.random.default_rng(6).normal(size=(5, DIM)).astype(np.float32)]


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 2 * PER_LABEL - 1)))
def test_the_search_finds_what_is_nearest_of_those_that_stay(rows: set[int]) -> None:
    """
    As brute force over the same references, whatever was left out, while each label keeps one.
    """
    bank = a_bank()
    names = ids_of(bank)
    without = Without(entries=frozenset(names[row] for row in rows))
    kept = without.kept_rows(bank.entries)
    if not 0 < int((kept < PER_LABEL).sum()) < len(kept):
        with pytest.raises(BankInvalid, match="leaves no reference of label"):
            leave_out(bank, kept)
        return
    smaller = leave_out(bank, kept)
    found = FaissBank(smaller, BankSettings()).nearest(some_queries(), 4)
    expected = BruteForceBank(smaller).nearest(some_queries(), 4)

    assert ids_of(smaller) == [name for row, name in enumerate(names) if row not in rows]
    assert [[[near.entry.id for near in one.nearest[label]] for label in (REAL, GENERATED)] for one in found] == [
        [[near.entry.id for near in one.nearest[label]] for label in (REAL, GENERATED)] for one in expected
    ]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, PER_LABEL - 1)))
def test_crops_go_with_their_pictures(rows: set[int]) -> None:
    """
    The heads' bank finds the same as brute force, in the global view and in the native one.
    """
    bank = a_bank(crops=True)
    smaller = leave_out(bank, Without(frozenset(ids_of(bank)[row] for row in rows)).kept_rows(bank.entries))
    references = FaissReferences(FaissBank(smaller, BankSettings()), smaller)
    exact = ExactBank(smaller.references())
    queries = np.stack([one.vector for one in some_queries()])

    assert references.sizes("native") == exact.sizes("native")
    for view in ("global", "native"):
        found, expected = references.nearest(view, queries, 3), exact.nearest(view, queries, 3)
        assert found.positive.rows.tolist() == expected.positive.rows.tolist()
        assert found.negative.rows.tolist() == expected.negative.rows.tolist()


def test_nothing_left_out_is_the_same_bank() -> None:
    """
    Names that the bank does not have change no version.
    """
    bank = a_bank()
    rows = Without(frozenset({"nobody"}), frozenset({"nothing"})).kept_rows(bank.entries)

    assert leave_out(bank, rows) is bank


def test_what_is_left_out_names_the_versions_whichever_way_it_was_said() -> None:
    """
    The manifest stays that of the files; the index differs, and only with the references.
    """
    bank = a_bank()
    one, two = ids_of(bank)[1], ids_of(bank)[2]
    whole = bank.identity("flat")
    first, again, both = (
        leave_out(bank, Without(frozenset(ids)).kept_rows(bank.entries)).identity("flat")
        for ids in ([one], [one, "nobody"], [two, one])
    )

    assert first == again
    assert len({whole.index, first.index, both.index}) == 3
    assert {whole.manifest_sha256} == {first.manifest_sha256, both.manifest_sha256}
    assert (whole.entries, first.entries, both.entries) == (18, 17, 16)


@pytest.fixture(scope="module")
def starter() -> WholeBank:
    """
    The bank that ships, with its fitted judgement.
    """
    return read_bank(Path(STARTER_BANK))


def test_a_disabled_generator_is_attributed_to_nobody(starter: WholeBank) -> None:
    """
    Its own pictures are given to others by the fitted judgement, whose rows go with the references.
    """
    name = next(name for name in starter.stored.entries.generators() if name is not None)
    small = left_out(starter, Without(generators=frozenset({name})))
    assert small.judgement is not None
    references = FaissReferences(FaissBank(small.stored, BankSettings()), small.stored)
    own = starter.stored.references()
    mine = np.flatnonzero(np.array([found == name for found in own.generator]))[:8]
    posteriors = [one.attribution.posterior for one in small.judgement.assess(own.features.take(mine), references)]

    assert len(small.judgement.attribution.code) == len(small.stored.entries) < len(starter.stored.entries)
    assert [posterior[name] for posterior in posteriors] == [0.0] * len(mine)


def test_the_judgement_is_the_same_otherwise(starter: WholeBank) -> None:
    """
    Calibration and conformal scores stay those of the whole bank, under the judgement's own id.
    """
    assert starter.judgement is not None
    entry = starter.stored.entries.entry(0).id
    small = left_out(starter, Without(entries=frozenset({entry}))).judgement
    assert small is not None

    assert small.id == starter.judgement.id
    assert small.reals is starter.judgement.reals
    assert small.attribution.code.tolist() == starter.judgement.attribution.code[1:].tolist()
