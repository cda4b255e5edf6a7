"""
A bank with some of its references left out at once: no file is read or written for it.

Who says what is left out is ``worker.bank.releases``, or for a single bank ``worker.bank.quarantine``. What was fitted
to the whole bank (heads, calibration, conformal scores) stays as it was fitted: its promises are those of the whole
bank until `touchstone fit` is run on a smaller one.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.bank_control import BankControlV1
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank, counts_of
from worker.bank.search_cells import SearchCells
from worker.bank.vectors import StoredVectors
from worker.errors import BankInvalid

_DIGITS: Final = 16

MOST_LEFT_OUT: Final = 0.01
"""Of a label: with more gone from its cells, a carried index finds too little (0.81 instead of 0.997 with a tenth)."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Without:
    """
    What is left out: references by id or by the sha256 of their files, and all of a generator or of a source.

    Names that the bank does not have do nothing; ``strangers`` tells them.
    """

    entries: frozenset[str] = frozenset()
    generators: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    @classmethod
    def of(cls, control: BankControlV1) -> "Without":
        """
        What a control record leaves out.
        """
        return cls(
            frozenset(control.disabled_entries),
            frozenset(control.disabled_generators),
            frozenset(control.disabled_sources),
        )

    def disabled(self) -> dict[str, tuple[str, ...]]:
        """
        The fields of a control record that leaves these out.
        """
        return {
            "disabled_entries": tuple(sorted(self.entries)),
            "disabled_generators": tuple(sorted(self.generators)),
            "disabled_sources": tuple(sorted(self.sources)),
        }

    def more(self, other: "Without") -> "Without":
        """
        These names and others.
        """
        return Without(self.entries | other.entries, self.generators | other.generators, self.sources | other.sources)

    def less(self, other: "Without") -> "Without":
        """
        These names without others.
        """
        return Without(self.entries - other.entries, self.generators - other.generators, self.sources - other.sources)

    def names(self) -> list[str]:
        """
        Every name, sorted within its kind.
        """
        return [*sorted(self.entries), *sorted(self.generators), *sorted(self.sources)]

    def strangers(self, entries: EntryTable) -> "Without":
        """
        Of these names those that no reference has.
        """
        found = [entries.entry(int(row)) for row in entries.rows_named(self.entries)]
        return Without(
            self.entries - {one.id for one in found} - {one.sha256 for one in found},
            self.generators - frozenset(name for name in entries.generators() if name),
            self.sources - frozenset(name for name in entries.sources() if name),
        )

    def kept_rows(self, entries: EntryTable) -> Rows:
        """
        The rows that stay, ascending.
        """
        stays = np.ones(len(entries), dtype=np.bool_)
        stays[entries.rows_named(self.entries)] = False
        for names, column in ((self.generators, entries.generators), (self.sources, entries.sources)):
            if names:
                stays &= np.array([name not in names for name in column()], dtype=np.bool_)
        return np.flatnonzero(stays).astype(np.int64)


def leave_out(bank: StoredBank, rows: Rows) -> StoredBank:
    """
    The bank with only these rows, ascending, under an identity that tells so.

    Its manifest's hash stays, since that names the files; ``without`` is a hash over the ids that were left out, so
    that the same references left out by id, generator or source are the same bank. An index that it carries stays only
    where no label loses more than ``MOST_LEFT_OUT``; otherwise its manifest tells of one that it has no longer, and
    every reference is compared. Raises ``BankInvalid`` where a label would be left without any reference.
    """
    if len(rows) == len(bank.entries):
        return bank
    entries = EntryTable(bank.entries.entry(int(row)) for row in rows)
    emptied = [str(label) for label in bank.sizes if not len(entries.rows_of(label))]
    if emptied:
        raise BankInvalid(
            f"bank {bank.manifest.id} {bank.manifest.version}: what is disabled leaves no reference of label "
            f"{', '.join(emptied)}, and nothing could be judged; enable some of them with `touchstone bank disable "
            "PLACE|BANK --enable`, or use another bank"
        )
    gone = np.setdiff1d(np.arange(len(bank.entries), dtype=np.int64), rows)
    ids = sorted(bank.entries.entry(int(row)).id for row in gone)
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:_DIGITS]
    return replace(
        bank,
        manifest=bank.manifest.model_copy(update={"counts": counts_of(entries)}),
        entries=entries,
        stored=_columns(bank.stored, rows),
        without=digest,
        search=_search(bank, entries, rows),
    )


def _search(bank: StoredBank, entries: EntryTable, rows: Rows) -> SearchCells | None:
    if bank.search is None:
        return None
    much = any(len(entries.rows_of(label)) < (1 - MOST_LEFT_OUT) * size for label, size in bank.sizes.items())
    return None if much else bank.search.of_rows(rows)


def _columns(stored: StoredVectors, rows: Rows) -> StoredVectors:
    owner = stored.native_owner.astype(np.int64)
    place = np.full(len(stored), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows), dtype=np.int64)
    crops = np.flatnonzero(place[owner] >= 0)
    return StoredVectors(
        vectors=stored.vectors[rows],
        native=stored.native[crops],
        native_owner=place[owner[crops]].astype(np.int32),
        norms=stored.norms[rows],
        realism=stored.realism[rows],
        shift=stored.shift[rows],
    )
