"""
The entries of a bank out of their columns, one at a time.
"""

import pytest

from tests.bank_builders import an_entry
from worker.bank import entries
from worker.bank.entries import EntryTable


def test_an_entry_that_was_made_is_given_again() -> None:
    """
    The same neighbours are found again and again: their entries are made once.
    """
    made = [an_entry(name) for name in ("one", "two", "three")]
    table = EntryTable(made)

    assert [table.entry(row) for row in range(3)] == made
    assert table.entry(1) is table.entry(1)


def test_no_more_entries_stay_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beyond it they are made anew, and are equal.
    """
    monkeypatch.setattr(entries, "MADE_LIMIT", 2)
    made = [an_entry(str(number)) for number in range(5)]
    table = EntryTable(made)
    first = table.entry(0)

    assert [table.entry(row) for row in range(5)] == made
    assert table.entry(0) is not first
    assert table.entry(0) == first
