"""
Entries are counted column by column as they are one by one.
"""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.bank_builders import an_entry
from worker.bank.entries import EntryTable
from worker.bank.vectors import NORM_TOLERANCE, _length_problems

WORDS = st.one_of(st.none(), st.sampled_from(["mill", "loom", "press"]))


@given(st.lists(st.tuples(st.sampled_from(["real", "generated"]), WORDS), max_size=40))
def test_the_tally_is_that_of_the_entries(rows: list[tuple[str, str | None]]) -> None:
    """
    How many there are of each label and generator, those without one included.
    """
    entries = [an_entry(str(number), label, generator=word) for number, (label, word) in enumerate(rows)]

    assert Counter(rows) == EntryTable(entries).tally()


@given(arrays.arrays(np.float16, (5, 3), elements=st.floats(-2, 2, width=16) | st.just(np.nan)), st.integers(0, 5))
def test_the_vectors_that_are_not_of_length_one_are_found(rows: np.ndarray, good: int) -> None:
    """
    All of them are counted, and the first is named, as their norms in single precision say.
    """
    rows[:good] = np.array([1, 0, 0], dtype=np.float16)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    bad = [row for row, norm in enumerate(norms) if not abs(norm - 1) < NORM_TOLERANCE]
    said = list(_length_problems("vectors", rows))

    assert bool(bad) == bool(said)
    assert all(text.startswith(f"{len(bad)} vectors are not of norm 1; the first, row {bad[0]},") for text in said)
