"""
The entries of a bank: as lines on disk, as columns in memory.

A million ``BankEntry`` objects weigh 0.5 GB; the columns weigh a sixth of that and make an entry when one is asked for.
"""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.wire import Sha256
from worker.bank.manifest import Name
from worker.domain import BankEntry, Label
from worker.errors import BankInvalid

MAX_WORDS: Final = 256
"""Characters of a generator, source or licence."""

MADE_LIMIT: Final = 32_768
"""Entries that stay once they were made, some 13 MB; to make one costs ten times as much as to look it up."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_UNKNOWN: Final = -1
_DIGEST_BYTES: Final = 32

Words = Annotated[str, Field(min_length=1, max_length=MAX_WORDS)]
Pixel = Annotated[int, Field(ge=1, lt=2**31)]


class EntryLine(BaseModel):
    """
    One line of ``entries.jsonl``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    label: Name
    generator: Words | None = None
    source: Words | None = None
    licence: Words | None = None
    sha256: Sha256
    format: Words | None = None
    width: Pixel | None = None
    height: Pixel | None = None
    byte_length: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    def entry(self) -> BankEntry:
        """
        The entry that this line holds.
        """
        return BankEntry(**{**self.__dict__, "label": Label(self.label)})


class EntryTable:
    """
    Entries in the order of their vectors, read-only; any thread may ask.
    """

    def __init__(self, entries: Iterable[BankEntry]) -> None:
        ids: list[bytes] = []
        digests = bytearray()
        self._label, self._generator, self._source = _Words(), _Words(), _Words()
        self._licence, self._format = _Words(), _Words()
        self._width, self._height, self._byte_length = array("i"), array("i"), array("q")
        # One entry at a time into the columns: a list of them all would weigh what the columns are there to save.
        for entry in entries:
            ids.append(entry.id.encode())
            digests += bytes.fromhex(entry.sha256)
            self._label.append(entry.label)
            self._generator.append(entry.generator)
            self._source.append(entry.source)
            self._licence.append(entry.licence)
            self._format.append(entry.format)
            self._width.append(_UNKNOWN if entry.width is None else entry.width)
            self._height.append(_UNKNOWN if entry.height is None else entry.height)
            self._byte_length.append(_UNKNOWN if entry.byte_length is None else entry.byte_length)
        self._ids = np.array(ids, dtype=np.bytes_)
        self._digests = bytes(digests)
        self._made: dict[int, BankEntry] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[BankEntry]:
        return (self._make(row) for row in range(len(self)))

    def entry(self, row: int) -> BankEntry:
        """
        The entry of one vector.
        """
        made = self._made.get(row)
        if made is None:
            made = self._make(row)
            if len(self._made) >= MADE_LIMIT:
                self._made.clear()
            self._made[row] = made
        return made

    def entries(self, rows: Iterable[int]) -> list[BankEntry]:
        """
        The entries of some vectors, in this order.
        """
        made = self._made
        return [made.get(row) or self.entry(row) for row in rows]

    def _make(self, row: int) -> BankEntry:
        return BankEntry(
            id=self._ids[row].decode(),
            label=Label(self._label.word(row) or ""),
            generator=self._generator.word(row),
            source=self._source.word(row),
            licence=self._licence.word(row),
            sha256=self._digests[_DIGEST_BYTES * row : _DIGEST_BYTES * (row + 1)].hex(),
            format=self._format.word(row),
            width=_known(self._width[row]),
            height=_known(self._height[row]),
            byte_length=_known(self._byte_length[row]),
        )

    def tally(self) -> dict[tuple[str, str | None], int]:
        """
        How many entries have each label and generator.
        """
        generators = len(self._generator) + 1
        pairs = self._label.codes().astype(np.int64) * generators + self._generator.codes() + 1
        found, counts = np.unique(pairs, return_counts=True)
        return {
            (self._label.named(pair // generators) or "", self._generator.named(pair % generators - 1)): count
            for pair, count in zip(found.tolist(), counts.tolist(), strict=True)
        }

    def repeated_ids(self) -> list[str]:
        """
        The ids that more than one entry has, sorted.
        """
        ids, counts = np.unique(self._ids, return_counts=True)
        return [found.decode() for found in ids[counts > 1]]

    def rows_named(self, ids: Collection[str]) -> NDArray[np.int64]:
        """
        The rows of the entries with these ids, or whose files have these sha256 in hex, ascending; int64[n].

        A name that no entry has is passed over.
        """
        if not ids:
            return np.empty(0, dtype=np.int64)
        wanted = np.array([name.encode() for name in ids], dtype=np.bytes_)
        named = np.isin(self._ids, wanted)
        digests = {bytes.fromhex(name) for name in ids if _SHA256.fullmatch(name)}
        if digests:
            width = _DIGEST_BYTES
            found = (self._digests[width * row : width * (row + 1)] in digests for row in range(len(self)))
            named |= np.fromiter(found, dtype=np.bool_, count=len(self))
        return np.flatnonzero(named).astype(np.int64)

    def rows_of(self, label: Label) -> NDArray[np.int64]:
        """
        The rows of one label, ascending; int64[n].
        """
        return self._label.rows_of(label)

    def generators(self) -> tuple[str | None, ...]:
        """
        The generator of every entry, in order; equal ones are one object.
        """
        return self._generator.words()

    def sources(self) -> tuple[str | None, ...]:
        """
        The source of every entry, in order.
        """
        return self._source.words()

    def formats(self) -> tuple[str | None, ...]:
        """
        The format of every entry's file, in order.
        """
        return self._format.words()

    def contents(self) -> tuple[str, ...]:
        """
        The sha256 of every entry's bytes, in hex, in order.
        """
        width = _DIGEST_BYTES
        return tuple(self._digests[width * row : width * (row + 1)].hex() for row in range(len(self)))

    def short_sides_px(self) -> NDArray[np.float64]:
        """
        The shorter side of every entry's picture, float64[n]; NaN where it is not known.
        """
        sides = np.stack([np.frombuffer(self._width, dtype=np.int32), np.frombuffer(self._height, dtype=np.int32)])
        return np.where((sides == _UNKNOWN).any(axis=0), np.nan, sides.min(axis=0).astype(np.float64))


def entry_line(entry: BankEntry) -> bytes:
    """
    The entry as one line of JSON, without the line's end.
    """
    return EntryLine(**asdict(entry)).model_dump_json().encode()


def read_entries(data: bytes) -> Iterator[BankEntry]:
    """
    The entries of ``entries.jsonl``, in order. Raises ``BankInvalid`` naming the first line that is none.
    """
    # Not split as a whole: no other thread has its turn meanwhile, and uploads may be flowing.
    for number, line in enumerate(BytesIO(data), start=1):
        try:
            yield EntryLine.model_validate_json(line).entry()
        except ValidationError as fault:
            first = fault.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise BankInvalid(
                f"entries.jsonl line {number}: {where} is {str(first['input'])[:80]!r}: {first['msg']}; "
                "rebuild the bank"
            ) from fault


class _Words:
    """
    A column of few different words: each word once, and a number per row.
    """

    def __init__(self) -> None:
        self._codes = array("i")
        self._words: list[str] = []
        self._code_of: dict[str, int] = {}

    def append(self, word: str | None) -> None:
        if word is None:
            self._codes.append(_UNKNOWN)
            return
        if word not in self._code_of:
            self._code_of[word] = len(self._words)
            self._words.append(word)
        self._codes.append(self._code_of[word])

    def __len__(self) -> int:
        return len(self._words)

    def codes(self) -> NDArray[np.int32]:
        return np.frombuffer(self._codes, dtype=np.int32)

    def named(self, code: int) -> str | None:
        return None if code == _UNKNOWN else self._words[code]

    def word(self, row: int) -> str | None:
        return self.named(self._codes[row])

    def words(self) -> tuple[str | None, ...]:
        return tuple(self.word(row) for row in range(len(self._codes)))

    def rows_of(self, word: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.codes() == self._code_of.get(word, len(self._words))).astype(np.int64)


def _known(value: int) -> int | None:
    return None if value == _UNKNOWN else value
