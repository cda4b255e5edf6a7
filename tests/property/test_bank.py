"""
Laws of searching and of a bank's files, over all banks.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.bank_builders import a_stored_bank, an_entry, unit_rows
from tests.brute_force_bank import BruteForceBank
from worker.adapters.faiss_bank import FaissBank
from worker.bank.entries import EntryTable, entry_line, read_entries
from worker.bank.files import load_bank, write_contents, write_manifest
from worker.domain import BankEntry, Embedding, Neighbourhood
from worker.settings.tree import BankSettings

FLAT = BankSettings(index="flat")

words = st.none() | st.text(min_size=1, max_size=20)
numbers = st.none() | st.integers(1, 2**31 - 1)


@st.composite
def vectors(draw: st.DrawFn) -> dict[str, NDArray[np.float64]]:
    """
    Two labels whose references crowd a few places, so that many are equal or nearly so.
    """
    dim = draw(st.integers(2, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = rng.normal(size=(draw(st.integers(1, 6)), dim))
    spread = draw(st.sampled_from([0.0, 1e-4, 0.05, 1.0]))
    return {
        label: (found := places[rng.integers(0, len(places), draw(st.integers(1, 60)))])
        + spread * rng.normal(size=found.shape)
        for label in ("real", "ai_generated")
    }


@st.composite
def entries(draw: st.DrawFn) -> BankEntry:
    """
    Any entry that a line can hold.
    """
    return an_entry(
        draw(st.text(max_size=8)),
        draw(st.sampled_from(["real", "ai_generated", "cat"])),
        generator=draw(words),
        source=draw(words),
        licence=draw(words),
        format=draw(words),
        width=draw(numbers),
        height=draw(numbers),
        byte_length=draw(numbers),
    )


def assert_same(found: Neighbourhood, expected: Neighbourhood, k: int) -> None:
    """
    The k best of everything: the same cosines in the same order, each truly its entry's, and no entry twice.

    Where cosines differ by less than arithmetic, either of two references may stand before the other.
    """
    for label, everything in expected.nearest.items():
        ours = found.nearest[label]
        true_cosine = {one.entry.id: one.similarity for one in everything}
        assert [one.similarity for one in ours] == pytest.approx([one.similarity for one in everything[:k]], abs=1e-6)
        assert [true_cosine[one.entry.id] for one in ours] == pytest.approx([one.similarity for one in ours], abs=1e-6)
        assert len({one.entry.id for one in ours}) == len(ours)


@given(vectors(), st.integers(1, 80), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_flat_is_brute_force(bank: Mapping[str, NDArray[np.float64]], k: int, seed: int) -> None:
    """
    The exact index finds what comparing with every reference finds, ties and crowds included.
    """
    stored = a_stored_bank(bank)
    anywhere = unit_rows(np.random.default_rng(seed).normal(size=(3, stored.vectors.shape[1])))
    queries = [Embedding.from_half(row) for row in (*anywhere, *stored.vectors[:3])]
    found = FaissBank(stored, FLAT).nearest(queries, k)

    everything = BruteForceBank(stored).nearest(queries, len(stored.entries))

    for ours, theirs in zip(found, everything, strict=True):
        assert_same(ours, theirs, k)


@given(vectors(), st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_batches_do_not_show(bank: Mapping[str, NDArray[np.float64]], k: int, sizes: list[int]) -> None:
    """
    However the queries are cut into searches, the answers are equal, not merely close.
    """
    stored = a_stored_bank(bank)
    rows = unit_rows(np.random.default_rng(1).normal(size=(sum(sizes), stored.vectors.shape[1])))
    queries = [Embedding.from_half(row) for row in rows]
    searched = FaissBank(stored, FLAT)
    cuts = np.cumsum([0, *sizes])
    pieces = [one for start, end in pairwise(cuts) for one in searched.nearest(queries[start:end], k)]

    assert pieces == list(searched.nearest(queries, k))


def test_many_threads_search_at_once() -> None:
    """
    A bank is read-only: eight threads get what one gets.
    """
    rng = np.random.default_rng(2)
    stored = a_stored_bank({"real": rng.normal(size=(300, 16)), "ai_generated": rng.normal(size=(200, 16))})
    searched = FaissBank(stored, FLAT)
    queries = [Embedding.from_half(row) for row in unit_rows(rng.normal(size=(64, 16)))]
    expected = list(searched.nearest(queries, 5))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: searched.nearest([query], 5)[0], queries * 4))

    assert found == expected * 4


@given(st.lists(entries(), max_size=30))
def test_entries_survive_columns_and_lines(given_entries: list[BankEntry]) -> None:
    """
    What goes into the table or onto disk comes out equal, absent values and odd characters included.
    """
    lines = b"".join(entry_line(entry) + b"\n" for entry in given_entries)

    assert list(EntryTable(given_entries)) == given_entries
    assert list(read_entries(lines)) == given_entries


@given(vectors())
@settings(max_examples=20, deadline=None)
def test_a_bank_survives_the_disk(bank: Mapping[str, NDArray[np.float64]]) -> None:
    """
    Written and loaded, every vector is the same to the bit and every entry equal.
    """
    stored = a_stored_bank(bank)
    with TemporaryDirectory() as folder:
        _write(Path(folder), bank)
        loaded = load_bank(Path(folder))

    assert loaded.vectors.tobytes() == stored.vectors.tobytes()
    assert list(loaded.entries) == list(stored.entries)
    assert loaded.sizes == stored.sizes


def _write(path: Path, bank: Mapping[str, NDArray[np.float64]]) -> None:
    stored = a_stored_bank(bank)
    checksums = write_contents(
        path, list(stored.entries), stored=stored.stored, probe=stored.probe, probe_png=stored.probe_png
    )
    write_manifest(path, stored.manifest.model_copy(update={"checksums": checksums}))
